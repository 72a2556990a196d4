"""Bundles that take a minute to export, kept between test runs for as long as nothing they are made of changes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import lite_export
import lite_runtime
import lite_transformer
from lite_export.bundle_writer import write_bundle
from lite_export.recipes import Recipe
from lite_runtime.bundle import Bundle, open_bundle

_PACKAGES = ("executorch", "numpy", "onnx", "onnxruntime", "onnxscript", "sentencepiece", "torch", "torchao")


def kept_bundle(name: str, model: Path, recipes: Sequence[Recipe], folder: Path) -> Bundle:
    """The bundle exported from a model folder, copied to ``folder``: what a test does to it stays there."""
    # Imported here as it locks files the way Unix does.
    from phones.cache import built

    inputs = [repr(recipes), sys.version, *map(version, _PACKAGES), *_files(model)]
    kept = built(name, inputs, lambda staging: write_bundle(model, staging / "bundle", recipes=recipes))
    shutil.copytree(kept / "bundle", folder)
    return open_bundle(folder)


def _files(model: Path) -> Iterator[bytes | str]:
    """The model, and the code that exports it: what stands directly in each package."""
    for path in sorted(model.rglob("*")):
        if path.is_file():
            yield from (path.relative_to(model).as_posix(), path.read_bytes())
    for package in (lite_transformer, lite_export, lite_runtime):
        for path in sorted(Path(package.__path__[0]).glob("*.py")):
            yield from (path.name, path.read_bytes())
