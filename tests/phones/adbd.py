"""AOSP's own adb daemon for this machine, built from Debian's source package; never committed, kept in the cache.

The sources are those of Debian's adb, compiled for the device's side (ADB_HOST=0).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from phones.apt import Apt
from phones.cache import built, run

PACKAGE, VERSION = "android-platform-tools", "29.0.6-28"
ADB = "system/core/adb"
SOURCES = Path(__file__).with_name("adbd_sources.txt")
_INCLUDES = [
    "/usr/include/android",
    ADB,
    f"{ADB}/daemon/include",
    f"{ADB}/adbconnection/include",
    "system/core/include",
    "system/core/diagnose_usb/include",
    "system/core/libasyncio/include",
    "system/core/libcrypto_utils/include",
    "system/core/libcutils/include",
    "frameworks/native/libs/adbd_auth/include",
]
_DEFINES = [
    "_GNU_SOURCE",
    "NDEBUG",
    "ADB_HOST=0",
    'ADB_VERSION="29.0.6"',
    'PLATFORM_TOOLS_VERSION="29.0.6"',
    "ALLOW_ADBD_NO_AUTH",
    "ALLOW_ADBD_ROOT=1",
    "ALLOW_ADBD_DISABLE_VERITY",
    "ANDROID_BASE_UNIQUE_FD_DISABLE_IMPLICIT_CONVERSION=1",
]
# clang's thread annotations are errors to g++, and Debian's headers leave some includes to others.
_ANNOTATIONS = """\
#include <android-base/thread_annotations.h>
#undef THREAD_ANNOTATION_ATTRIBUTE__
#define THREAD_ANNOTATION_ATTRIBUTE__(x)
"""
_CXX = ["g++", "-std=gnu++2a", *(f"-include{name}" for name in ("optional", "atomic", "memory", "annotations.h"))]
_LIBRARIES = ["base", "crypto", "cutils", "log", "pthread", "resolv", "util", "cap"]


def adbd() -> Path:
    """A folder that holds ``adbd``, every library it needs, and ``loader``, which starts it. A minute's build."""
    inputs = [
        Path(__file__).read_bytes(),
        SOURCES.read_bytes(),
        run("g++", "--version"),
        run("dpkg", "--print-architecture"),
    ]
    return built("adbd", inputs, _build)


def _build(target: Path) -> None:
    with TemporaryDirectory() as temporary:
        architecture = run("dpkg", "--print-architecture").strip()
        source = Apt(Path(temporary), architecture).source(PACKAGE, VERSION)
        _keep_inside(source / ADB / "daemon" / "main.cpp")
        (source / "annotations.h").write_text(_ANNOTATIONS)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda name: _compile(source, name), SOURCES.read_text().split()))
        _link(objects, target / "adbd")
        for name, library in _libraries(target / "adbd"):
            shutil.copy(library, target / name)


def _keep_inside(main: Path) -> None:
    """Take out the virtual machine's socket: unlike TCP, a network namespace does not hold it."""
    text, count = re.subn(r"\s*addrs\.push_back\(\s*[^;]*vsock[^;]*;", "", main.read_text())
    if count != 2:
        raise RuntimeError(f"{main.name} of {PACKAGE} {VERSION} listens on {count} vsock addresses, not on 2")
    main.write_text(text)


def _compile(source: Path, name: str) -> Path:
    result = source / f"{name}.o"
    compiler = ["gcc"] if name.endswith(".c") else _CXX
    options = [*(f"-I{folder}" for folder in _INCLUDES), "-I.", *(f"-D{define}" for define in _DEFINES)]
    run(*compiler, "-O1", "-fPIC", "-w", *options, "-c", name, "-o", result, cwd=source)
    return result


def _link(objects: list[Path], target: Path) -> None:
    android = Path("/usr/lib") / run("gcc", "-print-multiarch").strip() / "android"
    libraries = [f"-l{name}" for name in _LIBRARIES]
    run("g++", "-o", target, *objects, f"-L{android}", f"-Wl,-rpath={android}", *libraries)


def _libraries(program: Path) -> Iterator[tuple[str, Path]]:
    """Libraries a program is linked with, by the name it calls them; the loader as ``loader``."""
    for line in run("ldd", program).splitlines():
        if found := re.match(r"\s*(\S+) => (/\S+)", line):
            yield found[1], Path(found[2])
        elif found := re.match(r"\s*(/\S+)", line):
            yield "loader", Path(found[1])
