"""One process at a time in a folder of long work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_LOCK = ".lock"


class InUseError(ValueError):
    """Another process works in the folder; the message says what to do."""


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Nobody else enters this block for ``folder``, which is made where it is missing.

    The system ends the lock of a process that was killed.

    Raises:
        InUseError: another process is in such a block now.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InUseError(
            f"another process is at work in {folder}: wait for it, or stop it, then run this again"
        ) from None
    try:
        yield
    finally:
        # While it is held, so that nobody else's is removed. Windows keeps files that are open: there it stays.
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
        lock.release()
