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
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has no mallopt
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
