"""Whether this machine can run the test phones: Linux, root, Debian's packages, and qemu for arm64 programs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

# Program: the Debian package that brings it.
_TOOLS = {"g++": "g++", "ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux", "dpkg-source": "dpkg-dev"}
_HEADERS = {
    "/usr/include/android/android-base/logging.h": "android-libbase-dev",
    "/usr/include/android/openssl/ssl.h": "android-libboringssl-dev",
    "/usr/include/sys/capability.h": "libcap-dev",
}
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_ENTRY = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")


def lacking() -> str | None:
    """Why no test phone can run here; None if one can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"test phones run on Linux on x86-64, this is {platform.system()} on {platform.machine()}"
    if os.geteuid() != 0:
        return "test phones need root: they live in namespaces of their own"
    if "VERSION_CODENAME=bookworm" not in Path("/etc/os-release").read_text():
        return "test phones are built from Debian 12's packages, this is another system"
    missing = {package for tool, package in _TOOLS.items() if shutil.which(tool) is None}
    missing |= {package for header, package in _HEADERS.items() if not Path(header).exists()}
    if missing:
        return f"test phones need packages that are not installed: apt-get install {' '.join(sorted(missing))}"
    return None


def lacking_arm64() -> str | None:
    """Why no arm64 program can run here; None if one can. Registers qemu with the kernel where it is not.

    As Debian's package does it at boot, and with its file, the entry stays: other test runs use it too.
    """
    if reason := lacking():
        return reason
    if not _ENTRY.exists() or shutil.which("qemu-aarch64-static") is None:
        return "the arm64 test phone needs qemu: apt-get install qemu-user-static"
    if not (_BINFMT / "register").exists():
        mounted = subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT], capture_output=True, text=True)
        if mounted.returncode:
            return f"this kernel has no binfmt_misc: {mounted.stderr.strip()}"
    entry = _BINFMT / "qemu-aarch64"
    if not entry.exists():
        (_BINFMT / "register").write_text(_ENTRY.read_text().strip())
    said = entry.read_text()
    # F: the kernel holds qemu open, so that it is found inside a phone as well.
    if "enabled" not in said or "F" not in said.partition("flags:")[2].splitlines()[0]:
        return f"{entry} is disabled or lacks flag F: install Debian's qemu-user-static, or remove the entry"
    return None
