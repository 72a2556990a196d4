"""What a model costs: parameters, Mult-Adds and bytes, per layer, counted on the modules themselves.

Two counts of Mult-Adds. The paper's: all linears and the two products of attention, for a whole
teacher-forced sentence pair, without vocabulary projection and convolution taps. And what a cached decode
really does: once for the sentence (encoder, cross keys and values) and for each step, everything included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from lite_transformer.adaptive import AdaptiveEmbedding, AdaptiveProjection
from lite_transformer.config import ModelConfig
from lite_transformer.convolution import ConvolutionBranch
from lite_transformer.layers import DecoderLayer, EncoderLayer
from lite_transformer.model import LiteTransformer
from lite_transformer.presets import preset

_STATE_BYTES = 4  # states are float32
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class Row:
    """One layer, or the tables outside the layers.

    ``mult_adds``: paper's count of a whole pair. ``once``: real cost per sentence, before the first token.
    ``step``: real cost of one cached decode step.
    """

    name: str
    parameters: int
    kernel: int | None = None
    mult_adds: int = 0
    once: int = 0
    step: int = 0


@dataclass(frozen=True)
class StateSize:
    """Float32 bytes a decode carries for one hypothesis."""

    per_target_token: int
    per_source_token: int
    fixed: int

    def at(self, source: int, target: int) -> int:
        """Bytes with so many source tokens and so many decoded tokens."""
        return self.per_source_token * source + self.per_target_token * target + self.fixed


@dataclass(frozen=True)
class Profile:
    """Cost of one model. ``layers`` are the encoder's, then the decoder's; ``tables`` embedding and projection."""

    source_length: int
    target_length: int
    position: int
    layers: tuple[Row, ...]
    norms: Row
    tables: tuple[Row, ...]
    state: StateSize

    @property
    def rows(self) -> tuple[Row, ...]:
        return (*self.layers, self.norms, *self.tables)

    @property
    def parameters(self) -> int:
        """All parameters, tied ones once."""
        return sum(row.parameters for row in self.rows)

    @property
    def body_parameters(self) -> int:
        """Parameters as the paper counts them: without embedding tables and output matrix."""
        return self.parameters - sum(row.parameters for row in self.tables)

    @property
    def mult_adds(self) -> int:
        """The paper's Mult-Adds (section 5.1)."""
        return sum(row.mult_adds for row in self.rows)

    @property
    def once(self) -> int:
        """Mult-Adds before the first token: encoder, cross keys and values."""
        return sum(row.once for row in self.rows)

    @property
    def step(self) -> int:
        """Mult-Adds of the cached decode step at ``position``."""
        return sum(row.step for row in self.rows)

    def bytes(self, precision: str) -> int:
        """Size of the weights alone in ``fp32``, ``fp16`` or ``int8`` (without the scales int8 adds)."""
        return self.parameters * BYTES[precision]


def profile(
    model: str | ModelConfig,
    source_length: int | None = None,
    target_length: int | None = None,
    position: int | None = None,
) -> Profile:
    """Count a preset or a config, on a model without storage.

    Args:
        source_length, target_length: tokens; by default those at which the paper counts the preset (30 / 30).
        position: the decode step that is counted, from 0; by default the last of ``target_length``.

    Raises:
        KeyError: no such preset.
        ValueError: a length below 1, or a negative position.
    """
    chosen = preset(model) if isinstance(model, str) else None
    config = chosen.config if chosen else model
    assert isinstance(config, ModelConfig)
    source = source_length if source_length is not None else chosen.source_length if chosen else 30
    target = target_length if target_length is not None else chosen.target_length if chosen else 30
    position = target - 1 if position is None else position
    if source < 1 or target < 1 or position < 0:
        raise ValueError(f"lengths must be positive, got {source} source, {target} target, position {position}")
    with torch.device("meta"):
        instance = LiteTransformer(config)
    encoders = [_encoder(f"encoder.{i}", layer, source) for i, layer in enumerate(_encoder_layers(instance))]
    decoders = [
        _decoder(f"decoder.{i}", layer, source, target, position) for i, layer in enumerate(_decoder_layers(instance))
    ]
    return Profile(
        source_length=source,
        target_length=target,
        position=position,
        layers=(*encoders, *decoders),
        norms=Row("final norms", _parameters(_final_norms(instance))),
        tables=_tables(instance, target),
        state=_state(instance),
    )


def _encoder_layers(model: LiteTransformer) -> list[EncoderLayer]:
    return [cast("EncoderLayer", layer) for layer in model.encoder.layers] if model.encoder is not None else []


def _decoder_layers(model: LiteTransformer) -> list[DecoderLayer]:
    return [cast("DecoderLayer", layer) for layer in model.decoder.layers]


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _linears(*modules: nn.Module) -> int:
    """Mult-Adds of every linear inside, for one token."""
    return sum(m.weight.numel() for module in modules for m in module.modules() if isinstance(m, nn.Linear))


def _taps(convolution: ConvolutionBranch | None) -> int:
    """Mult-Adds of a convolution's taps, for one token."""
    return convolution.kernel * convolution.output.in_features if convolution else 0


def _kernel(layer: EncoderLayer | DecoderLayer) -> int | None:
    return layer.mixer.convolution.kernel if layer.mixer.convolution else None


def _encoder(name: str, layer: EncoderLayer, source: int) -> Row:
    attention = 2 * source * source * layer.mixer.attention.output.in_features
    mult_adds = source * _linears(layer) + attention
    once = mult_adds + source * _taps(layer.mixer.convolution)
    return Row(name, _parameters(layer), _kernel(layer), mult_adds, once=once)


def _decoder(name: str, layer: DecoderLayer, source: int, target: int, position: int) -> Row:
    memory, cross_width = 0, 0
    if layer.cross is not None:
        memory, cross_width = _linears(layer.cross.key, layer.cross.value), layer.cross.output.in_features
    token = _linears(layer) - memory + 2 * source * cross_width
    # Both products of attention: the whole square when teacher-forced, the keys so far in a step.
    pair = 2 * layer.mixer.attention.output.in_features
    mult_adds = target * token + pair * target * target + source * memory
    step = token + pair * (position + 1) + _taps(layer.mixer.convolution)
    return Row(name, _parameters(layer), _kernel(layer), mult_adds, once=source * memory, step=step)


def _final_norms(model: LiteTransformer) -> nn.ModuleList:
    return nn.ModuleList(stack.norm for stack in (model.encoder, model.decoder) if stack is not None)


def _tables(model: LiteTransformer, target: int) -> tuple[Row, Row]:
    """Embeddings and output projection; what they share is counted with the embeddings."""
    decoder = model.decoder
    embeddings = nn.ModuleList(stack.embedding for stack in (model.encoder, decoder) if stack is not None)
    shared = set(embeddings.parameters())
    own = sum(p.numel() for p in decoder.projection.parameters() if p not in shared)
    if not isinstance(decoder.embedding, AdaptiveEmbedding):
        return Row("embeddings", _parameters(embeddings)), Row("projection", own, step=_linears(decoder.projection))
    # The paper counts the widest band's projection for every token; the module computes all bands.
    bands = decoder.embedding.projections
    return (
        Row("embeddings", _parameters(embeddings), mult_adds=target * _linears(bands[0]), step=_linears(bands)),
        Row("projection", own, step=_adaptive_step(decoder.projection)),
    )


def _adaptive_step(projection: nn.Module) -> int:
    assert isinstance(projection, AdaptiveProjection)
    words = _parameters(projection.table.bands)
    return words + _linears(projection.table.projections[1:], projection.classes)


def _state(model: LiteTransformer) -> StateSize:
    layers = _decoder_layers(model)
    windows = [layer.mixer.convolution for layer in layers if layer.mixer.convolution]
    crossed = [layer.cross.output.in_features for layer in layers if layer.cross is not None]
    return StateSize(
        per_target_token=_STATE_BYTES * 2 * sum(layer.mixer.attention.output.in_features for layer in layers),
        per_source_token=_STATE_BYTES * 2 * sum(crossed),
        fixed=_STATE_BYTES * sum((c.kernel - 1) * c.output.in_features for c in windows),
    )
