"""Models for tests: the original system's, with what it computed, and tiny ones of ours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lite_transformer.checkpoint import load_weights
from lite_transformer.config import ModelConfig, StackConfig
from lite_transformer.fairseq import config_from_args, rename_weights
from lite_transformer.model import LiteTransformer

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Golden:
    """A model of the original system under our names, and what the original computed."""

    model: LiteTransformer
    tensors: dict[str, Tensor]
    info: dict[str, Any]


def load_golden(name: str) -> Golden:
    info = json.loads((GOLDEN / f"{name}.json").read_text())
    weights = load_file(GOLDEN / f"{name}.state_dict.safetensors")
    model = LiteTransformer(config_from_args(info["config"], weights))
    load_weights(model, rename_weights(weights), name)
    return Golden(model.eval(), load_file(GOLDEN / f"{name}.tensors.safetensors"), info)


def tiny_config(
    convolution: str = "lightweight",
    norm: str = "pre",
    embeddings: str = "shared",
    padding: str = "exact",
    vocab: int = 40,
    encoder: bool = True,
) -> ModelConfig:
    """A model of a few thousand parameters with every part of the real ones."""
    stack = StackConfig(
        kernels=(3, 7),
        attention_width=8,
        attention_heads=2,
        ffn_width=16,
        convolution=convolution,
        convolution_heads=2,
        glu=convolution == "dynamic",
    )
    return ModelConfig(
        width=16,
        source_vocab=vocab,
        target_vocab=vocab,
        encoder=stack if encoder else None,
        decoder=stack.model_copy(update={"kernels": (3, 5), "cross_heads": 2 if encoder else 0}),
        embeddings=embeddings,
        norm=norm,
        final_norm=norm == "pre",
        padding=padding,
        dropout=0.0,
        max_source=64,
        max_target=64,
    )


def tiny_model(config: ModelConfig, seed: int = 0) -> LiteTransformer:
    """A model whose biases and norms are not the neutral ones it starts with."""
    generator = torch.Generator().manual_seed(seed)
    model = LiteTransformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model
