"""A model on disk: ``config.json``, ``model.safetensors`` and, beside them, ``tokenizer.model``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from lite_transformer.config import ModelConfig
from lite_transformer.int8_weights import from_int8, to_int8
from lite_transformer.model import LiteTransformer

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.model"


class CheckpointError(ValueError):
    """A model folder cannot be used; the message names the file and what is wrong with it."""


def unique_weights(model: LiteTransformer) -> dict[str, Tensor]:
    """Every parameter once, under the first of its names (tied tables have several)."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def write_model(folder: Path, config: ModelConfig, weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write config and weights into an existing (staging) folder; int8 is of matrices, by rows (``int8_weights``)."""
    stored = to_int8(weights) if dtype == torch.int8 else {name: w.to(dtype) for name, w in weights.items()}
    write_weights(folder / WEIGHTS, stored)
    (folder / CONFIG).write_text(config.model_dump_json(indent=2) + "\n")


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors, from wherever they are, as one safetensors file.

    Raises:
        OSError: the file cannot be written. Safetensors itself would hide which error it was, a full disk for one, and
            create the file for its owner alone.
    """
    path.write_bytes(to_bytes({name: tensor.to("cpu").contiguous() for name, tensor in weights.items()}))


def check_output(output: Path) -> None:
    """Replace nothing but an older model: a model's folder is swapped as a whole.

    Raises:
        CheckpointError: ``output`` is something else.
    """
    if output.exists() and not (output / CONFIG).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise CheckpointError(f"{output} exists and is not a model folder: choose another --output")


def load_config(folder: Path) -> ModelConfig:
    """The config of a model folder.

    Raises:
        CheckpointError: missing, not JSON, or not a valid config.
    """
    path = folder / CONFIG
    try:
        return ModelConfig.model_validate_json(path.read_text("utf8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path} is not a model config: {where or 'file'}: {first['msg']}") from None


def load_model(folder: Path) -> LiteTransformer:
    """The model of a folder, in float32 and evaluation mode.

    Raises:
        CheckpointError: a file is missing, truncated, or does not fit its config.
    """
    model = LiteTransformer(load_config(folder))
    load_weights(model, read_weights(folder / WEIGHTS), str(folder / WEIGHTS))
    return model.eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, int8 matrices as float32.

    Raises:
        CheckpointError: missing, truncated or no safetensors file, or int8 matrices without their scales.
    """
    try:
        return from_int8(load_file(path))
    except FileNotFoundError:
        raise CheckpointError(f"no weights at {path}") from None
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is truncated or no safetensors file ({error}); copy it again") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def load_weights(model: LiteTransformer, weights: Mapping[str, Tensor], source: str) -> None:
    """Put ``weights`` into ``model``, checking that every parameter is there with its shape.

    Raises:
        CheckpointError: a parameter is missing or misshapen, or a tensor has no place.
    """
    wanted = dict(model.named_parameters(remove_duplicate=False))
    unique = dict(model.named_parameters())
    for name, parameter in unique.items():
        if name not in weights:
            raise CheckpointError(f"{source} lacks {name}")
        if weights[name].shape != parameter.shape:
            have, want = tuple(weights[name].shape), tuple(parameter.shape)
            raise CheckpointError(f"{source}: {name} has shape {have}, its config wants {want}")
    if unknown := sorted(set(weights) - set(wanted)):
        raise CheckpointError(f"{source} has tensors the model does not know: {', '.join(unknown[:3])}")
    with torch.no_grad():
        for name, parameter in unique.items():
            parameter.copy_(weights[name])
