"""coremltools, imported late and kept quiet: it takes seconds, and talks of optional parts nobody asked for."""

from __future__ import annotations

import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from types import ModuleType

INSTALL = "pip install 'lite-export[coreml]'"


def coremltools(part: str = "") -> ModuleType:
    """The package coremltools, or a module of it by its dotted name inside.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    with quiet():
        return importlib.import_module(f"coremltools.{part}" if part else "coremltools")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars, log lines below errors and version warnings from the user; exceptions pass.

    Its warnings tell of untested versions of torch and scikit-learn, of a macOS library missing elsewhere, and of
    a progress bar's font: nothing a user could act on.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.filterwarnings("ignore")
            yield
    finally:
        logging.disable(before)
