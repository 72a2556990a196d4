"""What runs on a test phone beside adbd: a shell, toybox, and fixtures for the Android services we ask.

From Debian's packages, as an Android phone has mksh and toybox too. The arm64 phone, like a real one, has no
/lib/ld-linux-aarch64.so.1: what is pushed there must bring its own loader and libraries.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from phones.apt import Apt
from phones.cache import built, run

OVERLAY = Path(__file__).with_name("overlay")
_EMPTY = ("data", "dev", "proc", "sys", "sdcard", "tmp", "system/adbd", "system/bin", "etc")
# A runner built for the host uses the host's kind of libraries.
_PACKAGES = {"arm64": ["mksh", "toybox"], "amd64": ["mksh", "toybox", "libstdc++6"]}
_PROPERTIES = {
    "arm64": """\
# Fixtures: this is no Android phone.
ro.boot.qemu=1
ro.build.version.release=none (a Linux userland)
ro.build.version.sdk=0
ro.lite_export.emulated=arm64 code runs under qemu-user on another processor
ro.product.cpu.abi=arm64-v8a
ro.product.device=lite_test_phone
ro.product.manufacturer=lite-export
ro.product.model=qemu-user test phone
""",
    "amd64": """\
# Fixtures: this is no Android phone.
ro.build.version.release=none (a Linux userland)
ro.build.version.sdk=0
ro.product.cpu.abi=x86_64
ro.product.device=lite_test_phone
ro.product.manufacturer=lite-export
ro.product.model=AOSP adbd test phone
""",
}
# By architecture: the loader's file, and how the loader is named in programs.
_LOADERS = {
    "arm64": ("lib/aarch64-linux-gnu/ld-linux-aarch64.so.1", "/lib/ld-linux-aarch64.so.1"),
    "amd64": ("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2"),
}
_HIDDEN_LOADER = "/system/lib64/loader"


def userland(architecture: str) -> Path:
    """The root folder of a phone of that architecture, Debian's name of it; nothing may be written there."""
    overlay = sorted(path for path in OVERLAY.rglob("*") if path.is_file())
    inputs = [Path(__file__).read_bytes(), architecture, *(path.read_bytes() for path in overlay)]
    return built(f"userland-{architecture}", inputs, lambda target: _build(target, architecture))


def _build(target: Path, architecture: str) -> None:
    with TemporaryDirectory() as temporary:
        for package in Apt(Path(temporary), architecture).packages(_PACKAGES[architecture]):
            run("dpkg", "-x", package, target)
    for folder in ("etc", "usr"):
        shutil.rmtree(target / folder)
    for folder in _EMPTY:
        (target / folder).mkdir(parents=True, exist_ok=True)
    binaries = target / "system" / "bin"
    for name in _applets(target, architecture):
        (binaries / name).symlink_to("toybox")
    shutil.copy(target / "bin" / "mksh", binaries / "sh")
    shutil.copy(target / "bin" / "toybox", binaries)
    shutil.rmtree(target / "bin")
    (target / "bin").symlink_to("system/bin")
    if architecture == "arm64":
        _hide_loader(target, *_LOADERS[architecture])
    (target / "system" / "build.prop").write_text(_PROPERTIES[architecture])
    shutil.copytree(OVERLAY, target, dirs_exist_ok=True)


def _applets(target: Path, architecture: str) -> list[str]:
    """Names toybox has; it prints them itself."""
    emulator = ["qemu-aarch64-static"] if architecture == "arm64" else []
    loader = target / _LOADERS[architecture][0]
    return run(*emulator, loader, "--library-path", loader.parent, target / "bin" / "toybox").split()


def _hide_loader(target: Path, loader: str, name: str) -> None:
    """Let only the userland's own programs find a loader: its new name must be no longer than the old."""
    old = name.encode() + b"\0"
    new = _HIDDEN_LOADER.encode().ljust(len(old), b"\0")
    for program in ("sh", "toybox"):
        path = target / "system" / "bin" / program
        path.write_bytes(path.read_bytes().replace(old, new))
    hidden = target / _HIDDEN_LOADER.lstrip("/")
    hidden.parent.mkdir(parents=True, exist_ok=True)
    hidden.symlink_to(f"/{loader}")
    (target / name.lstrip("/")).unlink()
