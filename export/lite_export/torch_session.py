"""The reference as a Session: what every exported format is compared with."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lite_export.graphs import EncodeGraph, StepGraph, state_specs
from lite_runtime.session import State
from lite_transformer.model import LiteTransformer


class TorchSession:
    """Runs ``LiteTransformer`` in PyTorch; state lives in numpy between steps, as for any runtime."""

    def __init__(self, model: LiteTransformer) -> None:
        self.model = model.eval()
        self.specs = state_specs(model.config)
        self._encode, self._step = EncodeGraph(model), StepGraph(model)

    @torch.inference_mode()
    def encode(self, source: Int[np.ndarray, "B S"], mask: Bool[np.ndarray, "B S"]) -> State:
        """See Session.encode."""
        state: State = {}
        fixed = self._encode(torch.from_numpy(source), torch.from_numpy(mask))
        remaining = iter(fixed)
        for spec in self.specs:
            if spec.initial is None:
                state[spec.name] = next(remaining).numpy()
            else:
                shape = [len(source) if d == "batch" else int(d) for d in spec.shape]
                state[spec.name] = np.full(shape, spec.initial, spec.dtype)
        return state

    @torch.inference_mode()
    def step(
        self, tokens: Int[np.ndarray, " B"], position: int, state: State
    ) -> tuple[Float[np.ndarray, "B V"], State]:
        """See Session.step."""
        inputs = [torch.from_numpy(state[spec.name]) for spec in self.specs]
        logits, *changed = self._step(torch.from_numpy(tokens), torch.tensor([position]), *inputs)
        return logits.numpy(), self._updated(state, changed)

    def _updated(self, state: State, changed: list[Tensor]) -> State:
        names = [spec.name for spec in self.specs if spec.output]
        return {**state, **{n: t.numpy() for n, t in zip(names, changed, strict=True)}}

    def reorder(self, state: State, rows: Int[np.ndarray, " N"]) -> State:
        """See Session.reorder."""
        return {name: tensor[rows] for name, tensor in state.items()}
