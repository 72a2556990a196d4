"""The reference as a Session: what every exported format is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lite_export.graphs import decoder_layer_names, encoder_layer_names, state_specs
from lite_runtime.session import State
from lite_transformer.layers import MixerState
from lite_transformer.model import DecoderState, LiteTransformer


class TorchSession:
    """Runs ``LiteTransformer`` in PyTorch, on the device where it is.

    On the CPU state lives in numpy between steps, as for any runtime; elsewhere it stays on the device, and layers,
    which parity alone looks at, are not noted.
    """

    def __init__(self, model: LiteTransformer) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.specs = state_specs(model.config)
        self.layers: State = {}
        if self.device.type != "cpu":
            return
        if model.encoder is not None:
            self._watch(model.encoder.layers, encoder_layer_names(model.config))
        self._watch(model.decoder.layers, decoder_layer_names(model.config))

    def _watch(self, layers: nn.ModuleList, names: list[str]) -> None:
        for layer, name in zip(layers, names, strict=True):
            layer.register_forward_hook(lambda _layer, _inputs, output, name=name: self._note(name, output))

    def _note(self, name: str, output: Any) -> None:
        # An encoder layer returns its frames; a decoder layer one frame and its state.
        self.layers[name] = (output[0][:, 0] if isinstance(output, tuple) else output).numpy()

    @torch.inference_mode()
    def encode(self, source: Int[np.ndarray, "B S"], mask: Bool[np.ndarray, "B S"]) -> State:
        """See Session.encode."""
        self.layers = {}
        fixed = iter(_fixed(self.model.encode(self._there(source), self._there(mask))))
        state: State = {}
        for spec in self.specs:
            if spec.initial is None:
                state[spec.name] = self._held(next(fixed))
            else:
                shape = [len(source) if d == "batch" else int(d) for d in spec.shape]
                state[spec.name] = self._held(self._there(np.full(shape, spec.initial, spec.dtype)))
        return state

    @torch.inference_mode()
    def step(
        self, tokens: Int[np.ndarray, " B"], position: int, state: State
    ) -> tuple[Float[np.ndarray, "B V"], State]:
        """See Session.step."""
        self.layers = {}
        before = self._decoder_state([self._there(state[spec.name]) for spec in self.specs])
        logits, after = self.model.decoder(self._there(tokens)[:, None], self._there([position]), before)
        changed = [t for mixer in after.mixers for t in mixer if t is not None]
        names = [spec.name for spec in self.specs if spec.output]
        held = {name: self._held(tensor) for name, tensor in zip(names, changed, strict=True)}
        return logits[:, 0].cpu().numpy(), {**state, **held}

    def _there(self, value: Any) -> Tensor:
        """A tensor on the model's device; on the CPU it shares the array's memory."""
        return torch.as_tensor(value, device=self.device)

    def _held(self, tensor: Tensor) -> Any:
        return tensor.numpy() if self.device.type == "cpu" else tensor

    def _decoder_state(self, tensors: list[Tensor]) -> DecoderState:
        """The reference's state from tensors in ``state_specs`` order."""
        config, rest = self.model.config, iter(tensors)
        has_window = config.decoder.attention_width < config.width
        layers = range(config.decoder.layers)
        mixers = tuple(MixerState(next(rest), next(rest), next(rest) if has_window else None) for _ in layers)
        if not config.decoder.cross_heads:
            return DecoderState(mixers, (None,) * len(layers), None)
        return DecoderState(mixers, tuple((next(rest), next(rest)) for _ in layers), next(rest))

    def reorder(self, state: State, rows: Int[np.ndarray, " N"]) -> State:
        """See Session.reorder."""
        chosen = rows if self.device.type == "cpu" else self._there(rows)
        return {name: tensor[chosen] for name, tensor in state.items()}

    def canonical(self, state: State) -> State:
        """See Session.canonical."""
        return state if self.device.type == "cpu" else {name: tensor.cpu().numpy() for name, tensor in state.items()}


def _fixed(state: DecoderState) -> list[Tensor]:
    """What a sentence never changes: cross keys, values and mask."""
    pairs = [t for pair in state.cross if pair for t in pair]
    return [*pairs, *([state.cross_bias] if state.cross_bias is not None else [])]
