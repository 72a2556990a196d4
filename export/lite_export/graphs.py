"""The two graphs that leave PyTorch: thin modules around the layers that train.

``EncodeGraph`` runs the encoder once and projects all cross keys and values; ``StepGraph`` advances one
target token over a flat, ordered list of state tensors. Names and order of that list come from ``state_specs``.
"""

from __future__ import annotations

from jaxtyping import Bool, Int
from torch import Tensor, nn

from lite_runtime.manifest import StateTensor
from lite_transformer.config import ModelConfig
from lite_transformer.layers import MixerState
from lite_transformer.model import DecoderState, LiteTransformer


def state_specs(config: ModelConfig) -> tuple[StateTensor, ...]:
    """Every tensor a decode carries, in the order the graphs take them: changing ones first, then fixed ones."""
    stack = config.decoder
    head = stack.attention_width // stack.attention_heads
    short = config.width - stack.attention_width
    changing: list[StateTensor] = []
    fixed: list[StateTensor] = []
    for layer, kernel in enumerate(stack.kernels):
        for part in ("key", "value"):
            name = f"self_{part}.{layer}"
            changing.append(
                StateTensor(
                    name=name,
                    kind="self_kv",
                    layer=layer,
                    shape=("batch", stack.attention_heads, 0, head),
                    output=f"new_{name}",
                    initial=0.0,
                )
            )
            if stack.cross_heads:
                cross = ("batch", stack.cross_heads, "source", config.width // stack.cross_heads)
                fixed.append(
                    StateTensor(
                        name=f"cross_{part}.{layer}",
                        kind="cross_kv",
                        layer=layer,
                        shape=cross,
                        output=None,
                        initial=None,
                    )
                )
        if short:
            name = f"conv_window.{layer}"
            changing.append(
                StateTensor(
                    name=name,
                    kind="conv_window",
                    layer=layer,
                    shape=("batch", kernel - 1, short),
                    output=f"new_{name}",
                    initial=0.0,
                )
            )
    if stack.cross_heads:
        mask = ("batch", 1, 1, "source")
        fixed.append(
            StateTensor(name="cross_mask", kind="cross_mask", layer=None, shape=mask, output=None, initial=None)
        )
    return (*changing, *fixed)


def flatten(state: DecoderState) -> list[Tensor]:
    """Tensors of a state after its first token, in ``state_specs`` order."""
    changing = [t for mixer in state.mixers if mixer for t in mixer if t is not None]
    fixed = [t for pair in state.cross if pair for t in pair]
    return [*changing, *fixed, *([state.cross_bias] if state.cross_bias is not None else [])]


def unflatten(config: ModelConfig, tensors: list[Tensor]) -> DecoderState:
    """Inverse of ``flatten``."""
    stack = config.decoder
    rest = iter(tensors)
    has_window = config.width > stack.attention_width
    mixers = tuple(MixerState(next(rest), next(rest), next(rest) if has_window else None) for _ in stack.kernels)
    if not stack.cross_heads:
        return DecoderState(mixers, (None,) * stack.layers, None)
    cross = tuple((next(rest), next(rest)) for _ in stack.kernels)
    return DecoderState(mixers, cross, next(rest))


class EncodeGraph(nn.Module):
    """``(source, mask) -> cross keys and values of every layer, cross mask``."""

    def __init__(self, model: LiteTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, source: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> tuple[Tensor, ...]:
        state = self.model.encode(source, mask)
        # Contiguous, so that no exporter bakes a transposed memory order into its inputs later.
        return tuple(t.contiguous() for t in flatten(state))


class StepGraph(nn.Module):
    """``(tokens, position, *state) -> (logits (B, V), *new state)``; fixed state is read and not returned."""

    def __init__(self, model: LiteTransformer) -> None:
        super().__init__()
        self.decoder = model.decoder
        self.config = model.config
        self.changing = sum(s.output is not None for s in state_specs(model.config))

    def forward(self, tokens: Int[Tensor, " B"], position: Int[Tensor, 1], *state: Tensor) -> tuple[Tensor, ...]:
        logits, new = self.decoder(tokens[:, None], position, unflatten(self.config, list(state)))
        return logits[:, 0], *flatten(new)[: self.changing]
