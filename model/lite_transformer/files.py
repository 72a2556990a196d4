"""Writing so that nothing half-written is ever seen: stage beside the target, then rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PARTIAL = ".partial"


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """A fresh folder that becomes ``target`` when the block ends well, and vanishes when it does not.

    Raises:
        NotADirectoryError: ``target`` is a file.
        OSError: the parent folder cannot be written.
    """
    # Resolved, so that a link keeps pointing at the new content, and "." has a name.
    target = target.resolve()
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is a file: choose another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    recover(target)
    staging = _beside(target)
    shutil.rmtree(staging, ignore_errors=True)
    try:
        # Inside, for Ctrl-C may come as soon as the folder is there.
        staging.mkdir()
        yield staging
        _replace(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """A path to write to, whose file becomes ``target`` when the block ends well, and vanishes when it does not.

    Raises:
        OSError: the folder cannot be written.
    """
    staging = _beside(target)
    try:
        yield staging
        staging.replace(target)
    finally:
        staging.unlink(missing_ok=True)


def recover(target: Path) -> None:
    """Finish what a kill between the two renames of an earlier ``staged_folder`` left undone."""
    target = target.resolve()
    old = _aside(target)
    if old.exists() and not target.exists():
        # Another process of the same run may do it first.
        with suppress(FileNotFoundError):
            old.rename(target)


def remove_leftovers(target: Path) -> None:
    """Remove what killed processes were staging for ``target``, whose name may be a pattern.

    Only for who knows that nobody else is writing it now.
    """
    for path in list(target.parent.glob(f".{target.name}.[0-9]*{_PARTIAL}")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _beside(target: Path) -> Path:
    """Where new content is made: this process's own name, on the same file system."""
    return target.with_name(f".{target.name}.{os.getpid()}{_PARTIAL}")


def _aside(target: Path) -> Path:
    """Where the old content waits while the new one takes its place."""
    return target.parent / f".{target.name}.old"


def _replace(staging: Path, target: Path) -> None:
    """Put ``staging`` in the place of ``target``; a folder cannot be renamed over one that has files."""
    old = _aside(target)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    try:
        staging.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
