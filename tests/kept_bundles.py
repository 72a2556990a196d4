"""Bundles that take a minute to export, kept between test runs for as long as nothing they are made of changes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from modulefinder import ModuleFinder
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

    inputs = [repr(recipes), sys.version, *map(version, _PACKAGES), *_model(model), *_exporter()]
    kept = built(name, inputs, lambda staging: write_bundle(model, staging / "bundle", recipes=recipes))
    shutil.copytree(kept / "bundle", folder)
    return open_bundle(folder)


def _model(folder: Path) -> Iterator[bytes | str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield from (path.relative_to(folder).as_posix(), path.read_bytes())


def _exporter() -> Iterator[bytes | str]:
    """Every module of ours that an export may import."""
    ours = (lite_transformer, lite_export, lite_runtime)
    finder = ModuleFinder(path=[str(Path(package.__path__[0]).parent) for package in ours])
    finder.import_hook(write_bundle.__module__)
    for name, module in sorted(finder.modules.items()):
        if module.__file__:
            yield from (name, Path(module.__file__).read_bytes())
