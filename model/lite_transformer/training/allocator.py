"""Keep large freed blocks inside the process.

A training step allocates and frees the same hundreds of megabytes each time. glibc hands such blocks back
to the kernel, which zeroes every page again, a good part of a CPU step's time. The tokens per second that
``lite-export train`` prints show what it is worth on a given machine.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Tell glibc never to trim the heap or map blocks one by one; does nothing on other systems."""
    if glibc := _glibc():
        glibc.mallopt(_M_MMAP_MAX, 0)
        glibc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> None:
    """Give the system what is free now: batches of changing shapes leave ever more holes, gigabytes in half an hour."""
    if glibc := _glibc():
        glibc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "mallopt") else None  # musl has none
