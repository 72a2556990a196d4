"""ExecuTorch kept quiet: it logs to stderr below Python, and its packages talk of parts nobody asked for."""

from __future__ import annotations

import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr

INSTALL = "pip install 'lite-export[executorch]'"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep log lines below errors, and what its packages warn of while imported, from the user; exceptions pass."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Of deprecations inside torch and torchao: nothing a user could act on.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.disable(before)


@contextmanager
def native_log() -> Iterator[Callable[[], str]]:
    """Take what native code writes to stderr meanwhile, itself or through Python; the function given tells it."""
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as taken, redirect_stderr(io.StringIO()) as told_python:
            os.dup2(taken.fileno(), 2)

            def told() -> str:
                taken.seek(0)
                return (taken.read().decode("utf8", "replace") + told_python.getvalue()).strip()

            yield told
    finally:
        os.dup2(kept, 2)
        os.close(kept)
