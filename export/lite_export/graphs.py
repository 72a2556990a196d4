"""The two graphs that leave PyTorch: the export form behind flat, named tensors.

``EncodeGraph`` runs the encoder once and projects all cross keys and values; ``StepGraph`` advances one
target token over an ordered list of state tensors. Names and order of that list come from ``state_specs``. Both
also return what each layer gave, so that a diverging graph can say where.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Int
from torch import Tensor, nn

from lite_export.export_form import EncoderForm, LayerState, StepForm
from lite_export.flavours import Flavour
from lite_runtime.manifest import StateKind, StateTensor
from lite_transformer.config import ModelConfig
from lite_transformer.model import LiteTransformer


def state_specs(config: ModelConfig, slots: int | None = None, held: bool = False) -> tuple[StateTensor, ...]:
    """Every tensor a decode carries, in the order the graphs take them: changing ones first, then fixed ones.

    Args:
        slots: of a cache that does not grow (flavour ``Slots``, one row at a time); None for ``Growing``.
        held: the runtime keeps the changing tensors itself.
    """
    stack = config.decoder
    head = stack.attention_width // stack.attention_heads
    short = config.width - stack.attention_width
    rows: tuple[str, ...] = () if slots else ("batch",)
    changing: list[StateTensor] = []
    fixed: list[StateTensor] = []

    def change(name: str, kind: StateKind, layer: int, shape: tuple[int, ...]) -> None:
        changing.append(
            StateTensor(
                name=name,
                kind=kind,
                layer=layer,
                shape=(*rows, *shape),
                output=f"new_{name}",
                initial=0.0,
                batch_axis=None if slots else 0,
                slots=slots if kind == "self_kv" else None,
                held=held,
            )
        )

    def fix(name: str, kind: StateKind, layer: int | None, shape: tuple[int | str, ...]) -> None:
        axis = None if slots else 0
        fixed.append(
            StateTensor(
                name=name, kind=kind, layer=layer, shape=(*rows, *shape), output=None, initial=None, batch_axis=axis
            )
        )

    for layer in range(stack.layers):
        for part in ("key", "value"):
            change(f"self_{part}.{layer}", "self_kv", layer, (stack.attention_heads, slots or 0, head))
            if stack.cross_heads:
                cross = (stack.cross_heads, "source", config.width // stack.cross_heads)
                fix(f"cross_{part}.{layer}", "cross_kv", layer, cross)
        if short:
            change(f"conv_window.{layer}", "conv_window", layer, (stack.kernels[layer] - 1, short))
    if stack.cross_heads:
        fix("cross_mask", "cross_mask", None, (1, 1, "source"))
    return (*changing, *fixed)


def encoder_layer_names(config: ModelConfig) -> list[str]:
    """Names of the encode graph's layer outputs, in order."""
    assert config.encoder is not None
    return [f"encoder_layer.{i}" for i in range(config.encoder.layers)]


def decoder_layer_names(config: ModelConfig) -> list[str]:
    """Names of the step graph's layer outputs, in order."""
    return [f"decoder_layer.{i}" for i in range(config.decoder.layers)]


class EncodeGraph(nn.Module):
    """``(source, mask) -> cross keys and values of every layer, cross mask, encoder layer outputs``."""

    def __init__(self, model: LiteTransformer, flavour: Flavour) -> None:
        super().__init__()
        self.form = EncoderForm(model, flavour)

    def forward(self, source: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> tuple[Tensor, ...]:
        fixed, layers = self.form(source, mask)
        return *fixed, *layers


class StepGraph(nn.Module):
    """``(tokens, position, *state) -> logits (B, V), new state, decoder layer outputs``; fixed state is only read."""

    def __init__(self, model: LiteTransformer, flavour: Flavour) -> None:
        super().__init__()
        self.form = StepForm(model, flavour)
        self.layers = model.config.decoder.layers
        self.has_window = model.config.decoder.attention_width < model.config.width

    def forward(self, tokens: Int[Tensor, " B"], position: Int[Tensor, " 1"], *state: Tensor) -> tuple[Tensor, ...]:
        states, crosses, bias = self._unflatten(state)
        logits, new, layers = self.form(tokens, position, states, crosses, bias)
        return logits, *(t for one in new for t in one if t is not None), *layers

    def _unflatten(self, state: Sequence[Tensor]) -> tuple[list[LayerState], list[tuple[Tensor, Tensor]], Tensor]:
        rest = iter(state)
        states = [
            LayerState(next(rest), next(rest), next(rest) if self.has_window else None) for _ in range(self.layers)
        ]
        return states, [(next(rest), next(rest)) for _ in range(self.layers)], next(rest)
