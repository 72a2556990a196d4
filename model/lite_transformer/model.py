"""The Lite Transformer (Wu et al., ICLR 2020): encoder, decoder and their embeddings."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lite_transformer.adaptive import AdaptiveEmbedding, AdaptiveProjection
from lite_transformer.attention import padding_bias
from lite_transformer.config import ModelConfig
from lite_transformer.layers import DecoderLayer, EncoderLayer, MixerState
from lite_transformer.positions import SinusoidalPositions


class DecoderState(NamedTuple):
    """Everything a decode step reads besides its token.

    Shapes: ``mixers`` per layer, see MixerState (empty before the first token: None);
    ``cross`` per layer keys and values (B, H, S, D); ``cross_bias`` (B, 1, 1, S).
    """

    mixers: tuple[MixerState | None, ...]
    cross: tuple[tuple[Tensor, Tensor] | None, ...]
    cross_bias: Tensor | None


class Encoder(nn.Module):
    """Embedding and a stack of encoder layers."""

    def __init__(self, config: ModelConfig, embedding: nn.Module) -> None:
        super().__init__()
        assert config.encoder is not None
        self.embedding = embedding
        self.scale = config.width**0.5
        self.positions = SinusoidalPositions(config.max_source, config.width, config.pad)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config, config.encoder, i) for i in range(config.encoder.layers))
        self.norm = nn.LayerNorm(config.width) if config.final_norm else nn.Identity()

    def forward(self, source: Int[Tensor, "B S"], keep: Bool[Tensor, "B S"]) -> Float[Tensor, "B S C"]:
        x = self.dropout(self.embedding(source) * self.scale + self.positions.of_mask(keep))
        bias = padding_bias(keep, x.dtype)
        for layer in self.layers:
            x = layer(x, keep, bias)
        return self.norm(x)


class Decoder(nn.Module):
    """Embedding, a stack of decoder layers and the vocabulary projection."""

    def __init__(self, config: ModelConfig, embedding: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding
        self.scale = config.width**0.5
        self.positions = SinusoidalPositions(config.max_target, config.width, config.pad)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(DecoderLayer(config, config.decoder, i) for i in range(config.decoder.layers))
        self.norm = nn.LayerNorm(config.width) if config.final_norm else nn.Identity()
        self.projection = projection

    def start(self, memory: Float[Tensor, "B S C"] | None, keep: Bool[Tensor, "B S"] | None) -> DecoderState:
        """The state before the first token; projects every layer's cross keys and values once."""
        empty: tuple[None, ...] = (None,) * len(self.layers)
        if memory is None or keep is None:
            return DecoderState(empty, empty, None)
        cross = tuple(cast("DecoderLayer", layer).cross_memory(memory) for layer in self.layers)
        return DecoderState(empty, cross, padding_bias(keep, memory.dtype))

    def forward(
        self, tokens: Int[Tensor, "B T"], position: Int[Tensor, " 1"], state: DecoderState
    ) -> tuple[Float[Tensor, "B T V"], DecoderState]:
        """Logits of the T tokens that stand at ``position`` and after, and the state that includes them."""
        x = self.embedding(tokens) * self.scale + self.positions.of_span(position, tokens.shape[1])
        x = self.dropout(x)
        mixers = []
        for layer, past, cross in zip(self.layers, state.mixers, state.cross, strict=True):
            x, mixer = layer(x, past, cross, state.cross_bias)
            mixers.append(mixer)
        return self.projection(self.norm(x)), state._replace(mixers=tuple(mixers))


class LiteTransformer(nn.Module):
    """Translation or summarisation model, or a language model where the config has no encoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        source, target, projection = _embeddings(config)
        self.encoder = Encoder(config, source) if source is not None else None
        self.decoder = Decoder(config, target, projection)

    def encode(self, source: Int[Tensor, "B S"], keep: Bool[Tensor, "B S"]) -> DecoderState:
        """Run the encoder once and prepare the decoder's state."""
        if self.encoder is None:
            raise ValueError("this model has no encoder: start its decoder without a source")
        return self.decoder.start(self.encoder(source, keep), keep)

    def forward(self, source: Int[Tensor, "B S"] | None, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Teacher-forced logits; padding in ``source`` is recognised by its token id."""
        state = self.decoder.start(None, None) if source is None else self.encode(source, source != self.config.pad)
        logits, _ = self.decoder(tokens, torch.zeros(1, dtype=torch.long, device=tokens.device), state)
        return logits


def _embeddings(config: ModelConfig) -> tuple[nn.Module | None, nn.Module, nn.Module]:
    """Source table, target table and output projection, sharing what the config shares."""
    if config.adaptive:
        table = AdaptiveEmbedding(config.target_vocab, config.width, config.adaptive)
        return None, table, AdaptiveProjection(table)
    target = _embedding(config, config.target_vocab)
    source = target if config.embeddings == "shared" else _embedding(config, config.source_vocab)
    projection = nn.Linear(config.width, config.target_vocab, bias=False)
    nn.init.normal_(projection.weight, std=config.width**-0.5)
    if config.embeddings != "untied":
        projection.weight = target.weight
    return source if config.encoder else None, target, projection


def _embedding(config: ModelConfig, vocab: int) -> nn.Embedding:
    table = nn.Embedding(vocab, config.width, padding_idx=config.pad)
    nn.init.normal_(table.weight, std=config.width**-0.5)
    with torch.no_grad():
        table.weight[config.pad].zero_()
    return table
