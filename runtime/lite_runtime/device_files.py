"""What is pushed to a device: the files of a folder, their hashes, and where in a workspace they go."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lite_runtime.device import DeviceError, workspace_path


@dataclass(frozen=True)
class Parcel:
    """Files for one folder of a workspace.

    Attributes:
        base: the folder there, relative to the workspace.
        files: by their path below ``base``.
        only: the one name below ``base`` that is meant; None means all of it, so that what else is there goes.
    """

    base: PurePosixPath
    files: dict[str, Path]
    only: str | None


def parcel(local: Path, remote: str) -> Parcel:
    """A file or a folder, made ready.

    Raises:
        DeviceError: there is none, or a name holds what no shell can be told safely.
    """
    path = workspace_path(remote)
    if local.is_file():
        packed = Parcel(path.parent, {path.name: local}, path.name)
    elif local.is_dir():
        files = (found for found in sorted(local.rglob("*")) if found.is_file())
        packed = Parcel(path, {file.relative_to(local).as_posix(): file for file in files}, None)
    else:
        raise DeviceError(f"{local}: no such file or folder, nothing was pushed")
    for name in packed.files:
        if "\\" in name or not name.isprintable():
            raise DeviceError(f"{name!r} cannot be pushed: rename it without backslashes and control characters")
    return packed


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
