"""A tiny but whole model folder: random weights, real tokenizer, real sentences."""

from __future__ import annotations

from pathlib import Path

import torch

from lite_export.bundle_writer import SENTENCES
from lite_export.loading import REPLACEMENTS, ModelCard, shipped_model
from lite_runtime.manifest import Decoding, Text
from lite_transformer.checkpoint import TOKENIZER, unique_weights, write_model
from lite_transformer.config import ModelConfig, StackConfig, plain_stack
from lite_transformer.model import LiteTransformer
from lite_transformer.training.prepare import train_tokenizer
from lite_transformer.training.recipe import TokenizerRecipe

VOCAB = 160


def tiny_config(convolution: str = "lightweight", norm: str = "pre") -> ModelConfig:
    """Two layers a side with different kernels: every kind of state, none of them alike."""
    stack = StackConfig(
        kernels=(3, 5),
        attention_width=8,
        attention_heads=2,
        ffn_width=16,
        convolution=convolution,
        convolution_heads=2,
    )
    return ModelConfig(
        width=16,
        source_vocab=VOCAB,
        target_vocab=VOCAB,
        encoder=stack,
        decoder=stack.model_copy(update={"kernels": (5, 7), "cross_heads": 2}),
        norm=norm,
        final_norm=norm == "pre",
        max_source=64,
        max_target=48,
    )


def plain_config(norm: str = "pre") -> ModelConfig:
    """A plain Transformer of two layers a side: no kernels, no convolution windows."""
    config = tiny_config(norm=norm)
    stack = plain_stack(2, config.width, 2, 40)
    decoder = plain_stack(2, config.width, 2, 40, cross_heads=2)
    return config.model_copy(update={"encoder": stack, "decoder": decoder})


def lively_model(config: ModelConfig, seed: int = 0, noise: float = 0.2) -> LiteTransformer:
    """Random weights large enough that attention is not uniform and outputs do not echo the input."""
    torch.manual_seed(seed)
    model = LiteTransformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
    return model.eval()


def write_tiny_folder(folder: Path, config: ModelConfig) -> Path:
    """A model folder with real weights, a real tokenizer and sentences."""
    folder.mkdir(parents=True)
    sentences = (shipped_model() / SENTENCES).read_text("utf8").splitlines()
    write_model(folder, config, unique_weights(lively_model(config)), torch.float32)
    train_tokenizer([[(s, s) for s in sentences]], TokenizerRecipe(vocab=VOCAB), folder / TOKENIZER, seed=1)
    short = [s for s in sentences if len(s) < 45][:12]
    (folder / SENTENCES).write_text("\n".join(short) + "\n", "utf8")
    card = ModelCard(
        model_id="tiny",
        source_language="en",
        target_language="fr",
        licence="MIT",
        training_data=("none",),
        parameters=1,
        decoding=Decoding(max_length_ratio=1.0, max_length_extra=2),
        text=Text(replacements=REPLACEMENTS),
    )
    (folder / "card.json").write_text(card.model_dump_json())
    return folder
