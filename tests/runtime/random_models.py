"""A random model whose outputs vary in length, for search and translation."""

from __future__ import annotations

import torch

from lite_transformer.config import ModelConfig, StackConfig
from lite_transformer.model import LiteTransformer


def tiny_model(vocab: int, seed: int = 6, max_length: int = 64) -> LiteTransformer:
    """A random model of 16 channels, decisive; with seed 6 some of its outputs end early and some never."""
    stack = StackConfig(kernels=(5,), attention_width=8, attention_heads=2, ffn_width=16, convolution_heads=2)
    config = ModelConfig(
        width=16,
        source_vocab=vocab,
        target_vocab=vocab,
        encoder=stack,
        decoder=stack.model_copy(update={"cross_heads": 2}),
        # Tied embeddings would make a random model repeat its last word for ever.
        embeddings="untied",
        max_source=max_length,
        max_target=max_length,
    )
    torch.manual_seed(seed)
    model = LiteTransformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.5)
    return model.eval()
