"""What an evaluation says of the models it ran: names to show, and facts that tell them apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lite_export.evaluate_result import System
from lite_export.loading import CARD, is_bundle, load_card, load_model_card
from lite_runtime.bundle import MANIFEST, open_bundle, sha256_of
from lite_runtime.manifest import Decoding

if TYPE_CHECKING:
    from lite_transformer.config import ModelConfig

# The paper counts sentences of this length on both sides.
_PAPER_LENGTH = 30
# Folders that training makes are all called so; their parents have the runs' names.
_FINAL = "final"
# Files of a model folder that decide what it answers: config, card, weights, and either kind of tokenizer.
_DECIDING = {".json", ".safetensors", ".model", ".codes"}


def named_models(paths: Sequence[Path]) -> dict[str, Path]:
    """Models under names to show, all different.

    Raises:
        ModelError, BundleError: one of them is no model.
    """
    named: dict[str, Path] = {}
    for path in paths:
        folder = path.resolve()
        name = folder.parent.name if folder.name == _FINAL else folder.name
        name = f"{name} ({'ONNX Runtime' if is_bundle(path) else 'PyTorch'})"
        named[name if name not in named else f"{name} #{len(named) + 1}"] = path
    return named


def direction_of(path: Path) -> str | None:
    """A model's languages, as in ``en-fr``; None for a model folder without a card.

    Raises:
        ModelError, BundleError: no model, or its card is not valid.
    """
    if not is_bundle(path) and not (path / CARD).exists():
        return None
    card = load_card(path)
    return f"{card.source_language}-{card.target_language}"


def systems_of(name: str, path: Path, beams: Sequence[int | None]) -> list[System]:
    """A model as one system for each beam width it searches with; None is its own default.

    Raises:
        ModelError, BundleError, CheckpointError: it cannot be read.
    """
    distinct = list(dict.fromkeys(beams))
    if len(distinct) == 1:
        return [describe(name, path, distinct[0])]
    return [describe(f"{name}, {'greedy' if beam == 1 else f'beam {beam}'}", path, beam) for beam in distinct]


def describe(name: str, path: Path, beam: int | None) -> System:
    """A model as an evaluation records it.

    Args:
        beam: None for the model's own default.

    Raises:
        ModelError, BundleError, CheckpointError: it cannot be read.
    """
    return _bundle(name, path, beam) if is_bundle(path) else _folder(name, path, beam)


def fingerprint(path: Path) -> str:
    """One sha256 over every file that decides what a model answers."""
    if is_bundle(path):
        # It holds the sha256 of every other file, which opening the bundle proves.
        return sha256_of(path / MANIFEST)
    files = sorted(file for file in path.iterdir() if file.suffix in _DECIDING)
    return hashlib.sha256("".join(f"{file.name} {sha256_of(file)}\n" for file in files).encode()).hexdigest()


def _bundle(name: str, path: Path, beam: int | None) -> System:
    bundle = open_bundle(path, verify=False)
    manifest, entry = bundle.manifest, bundle.format()
    return System(
        name=name,
        form=entry.name,
        model_id=manifest.card.model_id,
        weights_sha256=manifest.weights_sha256,
        parameters=manifest.card.parameters,
        bytes=sum(file.bytes for file in entry.files),
        beam=beam or manifest.decoding.beam,
    )


def _folder(name: str, path: Path, beam: int | None) -> System:
    from lite_transformer.checkpoint import WEIGHTS, load_config
    from lite_transformer.profile import profile

    card = load_model_card(path) if (path / CARD).exists() else None
    config = load_config(path)
    counted = profile(config, _PAPER_LENGTH, _PAPER_LENGTH)
    return System(
        name=name,
        form="pytorch",
        model_id=card.model_id if card else None,
        weights_sha256=sha256_of(path / WEIGHTS),
        parameters=counted.parameters,
        mult_adds=counted.mult_adds,
        bytes=(path / WEIGHTS).stat().st_size,
        architecture=_architecture(config),
        beam=beam or (card.decoding if card else Decoding()).beam,
    )


def _architecture(config: ModelConfig) -> Literal["lite", "transformer"]:
    stacks = [stack for stack in (config.encoder, config.decoder) if stack]
    return "transformer" if all(stack.attention_width == config.width for stack in stacks) else "lite"
