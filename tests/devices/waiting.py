"""Waiting for what commands do, and for them to have ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Until it holds; a failure where it does not in time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def assert_still(path: Path) -> None:
    """Whoever wrote to the file writes no more."""
    size = path.stat().st_size
    assert size > 0
    time.sleep(0.3)
    assert path.stat().st_size == size
