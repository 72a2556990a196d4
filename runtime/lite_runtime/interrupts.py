"""Ctrl-C between the start of a process and the moment its starter knows it: nobody could end that process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def held_interrupts() -> Iterator[Callable[[], None]]:
    """Ctrl-C waits until what the block gets is called, or the block ends; then it acts as it does outside.

    Only the main thread is ever interrupted; in others nothing is held.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))

    def let_through() -> None:
        signal.signal(signal.SIGINT, before)
        while came:
            signal.raise_signal(came.pop())

    try:
        yield let_through
    finally:
        let_through()
