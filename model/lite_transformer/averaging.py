"""The mean of several sets of weights: the last checkpoints of a run, or models trained from one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lite_transformer.checkpoint import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    CheckpointError,
    load_config,
    load_model,
    read_weights,
)
from lite_transformer.config import ModelConfig
from lite_transformer.import_fairseq import VOCABULARY

# What only training reads: models that differ in nothing else are of one kind.
_TRAINING_ONLY = {"dropout", "attention_dropout", "weight_dropout"}


def average(paths: Sequence[Path]) -> dict[str, Tensor]:
    """Mean of several checkpoints' weights, summed in float64.

    Raises:
        CheckpointError: no checkpoint, or a damaged one.
    """
    if not paths:
        raise CheckpointError("there is no checkpoint to average")
    total: dict[str, Tensor] = {}
    for path in paths:
        for name, tensor in read_weights(path).items():
            total[name] = total.get(name, torch.zeros((), dtype=torch.float64)) + tensor.double()
    return {name: (tensor / len(paths)).float() for name, tensor in total.items()}


def average_models(folders: Sequence[Path]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The first one's config, and the mean weights of all (model soups: Wortsman et al. 2022).

    They must be alike but for dropout, with one vocabulary, and should come from one another or from a common start:
    the mean of two that were trained apart is noise. The mean of one is itself.

    Raises:
        CheckpointError: none, one that cannot be read, or one of another kind.
    """
    if not folders:
        raise CheckpointError("there is no model to average")
    for other in folders[1:]:
        _check_alike(folders[0], other)
    for folder in folders:
        load_model(folder)  # fails where a tensor is missing or misshapen
    return load_config(folders[0]), average([folder / WEIGHTS for folder in folders])


def _check_alike(first: Path, other: Path) -> None:
    """Their weights mean the same, tensor by tensor and word by word."""
    one, two = (load_config(folder).model_dump(exclude=_TRAINING_ONLY) for folder in (first, other))
    if differing := sorted(key for key in one if one[key] != two[key]):
        raise CheckpointError(f"{other / CONFIG} is not like {first}'s: {', '.join(differing)} differ")
    for name in (TOKENIZER, VOCABULARY):
        if _content(first / name) != _content(other / name):
            raise CheckpointError(f"{other} has another vocabulary than {first} ({name}): the same id is another word")


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
