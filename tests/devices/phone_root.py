"""The file system of a test phone: this machine's programs, a /data of its own, and fixtures where Android differs.

The fixtures have the form in which Android 14 prints; their values are made up.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

FIXTURES = Path(__file__).with_name("fixtures")
_HOST_FOLDERS = ("bin", "etc", "lib", "lib32", "lib64", "sbin", "usr", "proc", "dev")
_CPUS = "/sys/devices/system/cpu"


def make_root(root: Path, properties: Mapping[str, str]) -> None:
    """Lay out the folder that will be a phone's root; getprop says what the fixture says, and ``properties``."""
    for folder in ("data/local/tmp", "system/etc", "sys", "tmp"):
        (root / folder).mkdir(parents=True)
    shutil.copytree(FIXTURES / "bin", root / "system" / "bin")
    shutil.copytree(FIXTURES / "dumpsys", root / "system" / "etc" / "dumpsys")
    shutil.copytree(FIXTURES / "sys", root / "sys", dirs_exist_ok=True)
    # The cores are this machine's: programs that run here count them.
    for name in ("present", "possible"):
        shutil.copyfile(Path(_CPUS, name), Path(f"{root}{_CPUS}", name))
    given = "".join(f"[{key}]: [{value}]\n" for key, value in properties.items())
    (root / "system" / "etc" / "getprop.txt").write_text((FIXTURES / "getprop.txt").read_text() + given)


def enter_root(root: str, shared: Sequence[str], disk: int | None) -> None:
    """Make the folder this process's root. The process must have a mount namespace of its own.

    Args:
        shared: folders of this machine that the phone sees too, where they are.
        disk: bytes that fit into the phone's /data/local/tmp; None leaves it to this machine's disk.
    """
    for name in _HOST_FOLDERS:
        _show(Path("/", name), Path(root, name))
    for folder in shared:
        _show(Path(folder), Path(root, folder.lstrip("/")))
    if disk is not None:
        _mount("-t", "tmpfs", "-o", f"size={disk}", "tmpfs", f"{root}/data/local/tmp")
    os.chroot(root)
    os.chdir("/")


def _show(source: Path, target: Path) -> None:
    """Bind a folder of this machine; one that is a link there (/bin) is the same link here."""
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        _mount("--rbind", str(source), str(target))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
