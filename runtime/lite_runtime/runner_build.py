"""Building the native runner from its sources: a folder that holds the program and every library it needs.

1. find or fetch headers and libraries of the runtimes and of SentencePiece  2. hash them, the sources and the compiler:
nothing is done twice  3. configure, compile and install with CMake  4. for Linux on arm64, add the loader and the C and
C++ libraries, so that the folder runs on a phone from ``adb shell``, which has none of them (experimental)  5. put the
folder in its place
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lite_runtime.device import DeviceError
from lite_runtime.runner_downloads import (
    Report,
    RunnerBuildError,
    arm64_packages,
    cache_folder,
    find_tool,
    onnxruntime_android,
    run_tool,
)
from lite_runtime.runner_folder import NOTE, RunnerFolder, RunnerNote, open_runner
from lite_runtime.runner_sentencepiece import SentencePiece, find_sentencepiece

TARGETS = ("linux-x86_64", "linux-arm64", "android-arm64")
_ABIS = {"linux-x86_64": "x86_64", "linux-arm64": "arm64-v8a", "android-arm64": "arm64-v8a"}
_CROSS_COMPILER = "aarch64-linux-gnu-g++"
_LOADER = "ld-linux-aarch64.so.1"
_SYSTEM_LIBRARIES = (
    _LOADER,
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
)
_TOOLCHAIN = "build/cmake/android.toolchain.cmake"
_CMAKE_FIX = "apt install cmake, brew install cmake, or pip install cmake"


def default_target() -> str:
    """This computer's own.

    Raises:
        RunnerBuildError: there is none for it.
    """
    if target := _here():
        return target
    raise RunnerBuildError(f"no runner for this computer: choose a target of {', '.join(TARGETS)}")


def _here() -> str | None:
    targets = {"x86_64": "linux-x86_64", "aarch64": "linux-arm64"}
    return targets.get(platform.machine()) if sys.platform == "linux" else None


def default_output(target: str) -> Path:
    """Where a target's runner is kept unless told otherwise: the user's cache."""
    return cache_folder() / "runners" / target


def build_runner(
    target: str,
    output: Path,
    report: Report = lambda line: None,
    ndk: Path | None = None,
    sentencepiece: Path | None = None,
) -> RunnerFolder:
    """Build the native runner; what was built there from the same inputs is left as it is.

    Args:
        target: one of ``TARGETS``.
        output: the folder to write; an earlier runner there is replaced, any other folder is not.
        report: told what is done now.
        ndk: Android's NDK; default: $ANDROID_NDK_HOME. For android-arm64 only.
        sentencepiece: the folder whose ``include`` and ``lib`` have the target's SentencePiece; default: the one that
            the runner there was built with, else this computer's for this computer. Without, it knows no text.

    Raises:
        RunnerBuildError: a tool, a package or the NDK is missing, or the build fails.
    """
    if target not in TARGETS:
        raise RunnerBuildError(f"unknown target {target}; there are: {', '.join(TARGETS)}")
    if output.exists() and not (output / NOTE).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise RunnerBuildError(f"{output} is there already, and no runner: choose another place")
    there = _there(output)
    before = Path(there.note.sentencepiece) if there and there.note.sentencepiece else None
    text = find_sentencepiece(target, sentencepiece, before, here=target == _here())
    parts = replace(_parts(target, report, ndk), sentencepiece=text)
    inputs = _digest(parts)
    if there and there.note.inputs == inputs:
        report(f"{output} is up to date")
        return there
    if text is None:
        report("without text: no SentencePiece (apt install libsentencepiece-dev, or --sentencepiece FOLDER)")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".runner-", suffix=".partial") as temporary:
        staging = Path(temporary) / "runner"
        _compile(parts, Path(temporary) / "build", staging, report)
        for library in parts.system_libraries:
            shutil.copy(library, staging)
        note = RunnerNote(
            target=target,
            abi=_ABIS[target],
            loader=parts.loader,
            formats=parts.formats,
            inputs=inputs,
            sentencepiece=str(text.folder) if text else None,
        )
        (staging / NOTE).write_text(note.model_dump_json(indent=1) + "\n", "utf8")
        if output.exists():
            output.rename(Path(temporary) / "before")
        staging.rename(output)
    return open_runner(output)


@dataclass(frozen=True)
class _Parts:
    """What one target is built from.

    Attributes:
        compiler: None where the NDK has it.
        headers: ONNX Runtime's.
        onnxruntime: its library; None builds without it.
        executorch: the package's folder; None builds without it.
        sentencepiece: None builds without it.
    """

    target: str
    compiler: str | None
    headers: Path | None
    onnxruntime: Path | None
    executorch: Path | None
    system_libraries: tuple[Path, ...] = ()
    loader: str | None = None
    ndk: Path | None = None
    sentencepiece: SentencePiece | None = None

    @property
    def formats(self) -> tuple[str, ...]:
        there = {"onnx": self.onnxruntime, "executorch": self.executorch}
        return tuple(name for name, part in there.items() if part is not None)

    def cmake_variables(self) -> list[str]:
        values: dict[str, Path | str | None] = {
            "CMAKE_CXX_COMPILER": self.compiler,
            "LITE_ONNX": "ON" if self.onnxruntime else "OFF",
            "LITE_EXECUTORCH": "ON" if self.executorch else "OFF",
            "ONNXRUNTIME_INCLUDE": self.headers,
            "ONNXRUNTIME_LIBRARY": self.onnxruntime,
            "EXECUTORCH_ROOT": self.executorch,
            "LITE_SENTENCEPIECE": "ON" if self.sentencepiece else "OFF",
            "SENTENCEPIECE_INCLUDE": self.sentencepiece.include if self.sentencepiece else None,
            "SENTENCEPIECE_LIBRARY": self.sentencepiece.linked if self.sentencepiece else None,
            "Python3_EXECUTABLE": sys.executable,
        }
        return [f"-D{name}={value}" for name, value in values.items() if value is not None]

    def files(self) -> Iterable[Path]:
        """Every file that goes into the runner, sources first."""
        # A developer's own builds are in build/, by the presets.
        for part in ("CMakeLists.txt", "CMakePresets.json", "cmake/*", "src/*"):
            yield from sorted(sources().glob(part))
        if self.headers:
            yield self.headers / "onnxruntime_cxx_api.h"
        if self.onnxruntime:
            yield self.onnxruntime
        if self.executorch:
            yield from sorted((self.executorch / "lib").glob("*.so"))
        if self.sentencepiece:
            yield self.sentencepiece.include / "sentencepiece_processor.h"
            yield self.sentencepiece.linked
        yield from self.system_libraries
        if self.ndk:
            yield self.ndk / "source.properties"


def sources() -> Path:
    """The folder of the runner's C++ sources."""
    return Path(__file__).resolve().parent / "native"


def _parts(target: str, report: Report, ndk: Path | None) -> _Parts:
    if target == "android-arm64":
        return _android(report, ndk)
    return _linux_arm64(report) if target == "linux-arm64" else _linux_x86_64(report)


def _linux_x86_64(report: Report) -> _Parts:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise RunnerBuildError("linux-x86_64 is built on Linux on x86_64 only: choose another target")
    compiler = find_tool(os.environ.get("CXX", "c++"), "apt install g++, or set CXX to a C++ compiler")
    onnxruntime, executorch = _package("onnxruntime"), _package("executorch")
    if onnxruntime is None and executorch is None:
        raise RunnerBuildError("neither runtime is installed: pip install 'lite-export[onnx]'")
    for name, package in (("onnxruntime", onnxruntime), ("executorch", executorch)):
        if package is None:
            report(f"without {name}, which is not installed")
    return _Parts(
        target="linux-x86_64",
        compiler=compiler,
        headers=_headers(report) if onnxruntime else None,
        onnxruntime=_library(onnxruntime) if onnxruntime else None,
        executorch=executorch,
    )


def _linux_arm64(report: Report) -> _Parts:
    compiler = find_tool(_CROSS_COMPILER, "apt install g++-aarch64-linux-gnu")
    packages = arm64_packages(report)
    return _Parts(
        target="linux-arm64",
        compiler=compiler,
        headers=_headers(report),
        onnxruntime=_library(packages / "onnxruntime"),
        executorch=packages / "executorch",
        system_libraries=tuple(_system_library(compiler, name) for name in _SYSTEM_LIBRARIES),
        loader=_LOADER,
    )


def _android(report: Report, ndk: Path | None) -> _Parts:
    home = ndk or (Path(os.environ["ANDROID_NDK_HOME"]) if os.environ.get("ANDROID_NDK_HOME") else None)
    if home is None:
        raise RunnerBuildError("no NDK: install it with Android Studio, then --ndk PATH or ANDROID_NDK_HOME")
    for needed in (_TOOLCHAIN, "source.properties"):
        if not (home / needed).is_file():
            raise RunnerBuildError(f"{home} is no NDK (it has no {needed}): name its folder")
    archive = onnxruntime_android(report)
    return _Parts(
        target="android-arm64",
        compiler=None,
        headers=archive / "headers",
        onnxruntime=archive / "jni/arm64-v8a/libonnxruntime.so",
        executorch=None,
        ndk=home.resolve(),
    )


def _package(name: str) -> Path | None:
    """An installed package's folder, without importing it."""
    spec = importlib.util.find_spec(name)
    places = (spec.submodule_search_locations if spec else None) or []
    return Path(next(iter(places))) if places else None


def _library(onnxruntime: Path) -> Path:
    found = sorted((onnxruntime / "capi").glob("libonnxruntime.so.*"))
    if not found:
        raise RunnerBuildError(f"{onnxruntime} has no libonnxruntime.so: pip install --force-reinstall onnxruntime")
    return found[-1]


def _headers(report: Report) -> Path:
    if chosen := os.environ.get("ONNXRUNTIME_INCLUDE"):
        return Path(chosen)
    return onnxruntime_android(report) / "headers"


def _system_library(compiler: str, name: str) -> Path:
    # The compiler answers with the bare name where it has none.
    path = Path(run_tool([compiler, f"-print-file-name={name}"], Path.cwd()).strip())
    if not path.is_absolute():
        raise RunnerBuildError(f"{compiler} has no {name}: apt install libc6-dev-arm64-cross libstdc++6-arm64-cross")
    return path


def _digest(parts: _Parts) -> str:
    # The note names SentencePiece's folder; the kinds of characters are this Python's.
    folder = parts.sentencepiece.folder if parts.sentencepiece else None
    words = (parts.target, parts.formats, parts.loader, unicodedata.unidata_version, str(folder))
    digest = hashlib.sha256(repr(words).encode())
    if parts.compiler:
        digest.update(run_tool([parts.compiler, "--version"], Path.cwd()).encode())
    for path in parts.files():
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _there(output: Path) -> RunnerFolder | None:
    try:
        return open_runner(output)
    except DeviceError:
        return None


def _compile(parts: _Parts, build: Path, staging: Path, report: Report) -> None:
    cmake = find_tool("cmake", _CMAKE_FIX)
    environment = {**os.environ, **({"ANDROID_NDK_HOME": str(parts.ndk)} if parts.ndk else {})}
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    report(f"configuring the native runner for {parts.target}")
    configure = [cmake, "--preset", parts.target, "-B", str(build), *generator, *parts.cmake_variables()]
    run_tool(configure, sources(), environment)
    report(f"compiling the native runner for {parts.target}")
    run_tool([cmake, "--build", str(build), "--parallel", str(os.cpu_count() or 1)], sources(), environment)
    run_tool([cmake, "--install", str(build), "--prefix", str(staging), "--strip"], sources(), environment)
