"""What the native runner is built from and no Python package here has: fetched once, proven, kept in the user's cache.

ONNX Runtime's headers and its library for Android are in an npm package (the official Android archive, repackaged);
libraries for Linux on arm64 are in the wheels that pip would install there. Each is pinned by its SHA-256.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from lite_runtime.bundle import sha256_of


class RunnerBuildError(ValueError):
    """The native runner cannot be built; the message names what to install or to change."""


_NPM_PACKAGE = "com.github.asus4.onnxruntime"
_NPM_VERSION = "0.4.9"
_NPM_SHA256 = "e59788788818fdde1b2e522e766a21ba0f7d8391de55737abf81e32cc801785d"
_ARCHIVE = "package/Plugins/Android/onnxruntime.aar"
_ARM64_PLATFORM = "manylinux_2_28_aarch64"
# By the file's name, which has the version, for any one Python: only what is no Python in it is used.
_ARM64_WHEELS = {
    "onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_aarch64.whl": (
        "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3"
    ),
    "executorch-1.5.1-cp311-cp311-manylinux_2_28_aarch64.whl": (
        "8ee02348a3ea80ddf770822911ebf78da616b73afce0fbaaa79f23311c88c66a"
    ),
}

Report = Callable[[str], None]


def cache_folder() -> Path:
    """$LITE_EXPORT_CACHE, or a folder of our own in the user's cache."""
    if chosen := os.environ.get("LITE_EXPORT_CACHE"):
        return Path(chosen).resolve()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "lite-export"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lite-export"


def onnxruntime_android(report: Report) -> Path:
    """A folder with ONNX Runtime's ``headers/`` and, for Android, ``jni/arm64-v8a/libonnxruntime.so``.

    Raises:
        RunnerBuildError: npm is missing or fails, or gives another file than the pinned one.
    """

    def fetch(folder: Path, staging: Path) -> None:
        report(f"fetching ONNX Runtime's headers: {_NPM_PACKAGE} {_NPM_VERSION} from npm, 150 MB")
        npm = find_tool("npm", "install Node.js, or set ONNXRUNTIME_INCLUDE to a folder with onnxruntime_cxx_api.h")
        run_tool([npm, "pack", f"{_NPM_PACKAGE}@{_NPM_VERSION}", "--silent"], folder)
        package = folder / f"{_NPM_PACKAGE}-{_NPM_VERSION}.tgz"
        _prove(package, _NPM_SHA256)
        with tarfile.open(package) as packed:
            packed_archive = packed.extractfile(_ARCHIVE)
            assert packed_archive is not None, "the pinned package has it"
            with packed_archive, zipfile.ZipFile(packed_archive) as archive:
                _unpack(archive, ("headers/", "jni/arm64-v8a/libonnxruntime.so"), staging)

    return _kept(f"onnxruntime-android-{_NPM_VERSION}", fetch)


def arm64_packages(report: Report) -> Path:
    """A folder with the ``onnxruntime`` and ``executorch`` packages of Linux on arm64, libraries and headers only.

    Raises:
        RunnerBuildError: pip is missing or fails, or gives other files than the pinned ones.
    """

    def fetch(folder: Path, staging: Path) -> None:
        wanted = ["==".join(name.split("-")[:2]) for name in _ARM64_WHEELS]
        report(f"fetching {' and '.join(wanted)} for {_ARM64_PLATFORM} with pip, 40 MB")
        target = ["--platform", _ARM64_PLATFORM, "--python-version", "311", "--only-binary=:all:", "--no-deps"]
        run_tool([sys.executable, "-m", "pip", "download", "--quiet", *target, *wanted, "--dest", str(folder)], folder)
        for name, sha256 in _ARM64_WHEELS.items():
            _prove(folder / name, sha256)
            with zipfile.ZipFile(folder / name) as wheel:
                _unpack(wheel, ("onnxruntime/capi/lib", "executorch/include/", "executorch/lib/"), staging)

    return _kept("arm64-" + "-".join(sha256[:8] for sha256 in _ARM64_WHEELS.values()), fetch)


def find_tool(name: str, fix: str) -> str:
    """Path of a program.

    Raises:
        RunnerBuildError: it is not installed; ``fix`` says what to do.
    """
    path = shutil.which(name)
    if path is None:
        raise RunnerBuildError(f"{name} is not installed: {fix}")
    return path


def run_tool(command: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    """Run a program in a folder; what it wrote to stdout.

    Raises:
        RunnerBuildError: it failed; the message has the end of what it wrote.
    """
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise RunnerBuildError(f"{' '.join(command[:4])} ... failed with exit code {done.returncode}:\n{said}")
    return done.stdout


def _kept(name: str, fetch: Callable[[Path, Path], None]) -> Path:
    """A folder of the cache, filled by ``fetch(downloads, folder)`` where it is not there yet: whole, or not at all."""
    target = cache_folder() / "native" / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, suffix=".partial") as temporary:
        downloads, staging = Path(temporary) / "downloads", Path(temporary) / "folder"
        downloads.mkdir()
        staging.mkdir()
        fetch(downloads, staging)
        if not target.is_dir():
            staging.rename(target)
    return target


def _prove(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise RunnerBuildError(f"the registry gave no {path.name}: look at its settings, or try again later")
    if sha256_of(path) != sha256:
        raise RunnerBuildError(f"{path.name} is not the file it should be (its sha256 differs): do not use it")


def _unpack(archive: zipfile.ZipFile, prefixes: tuple[str, ...], target: Path) -> None:
    archive.extractall(target, [name for name in archive.namelist() if name.startswith(prefixes)])
