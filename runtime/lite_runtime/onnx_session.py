"""ONNX Runtime as a Session: two graphs of a bundle, state in numpy arrays between steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from lite_runtime.manifest import FormatEntry, StateTensor
from lite_runtime.onnx_graph import load_graph, run_graph
from lite_runtime.session import State


class OnnxSession:
    """Runs a bundle's ``encode`` and ``step`` graphs on the CPU.

    Args:
        folder: the bundle.
        entry: its onnx format.
        threads: of one operator; None leaves it to ONNX Runtime.

    Raises:
        BundleError: ONNX Runtime is not installed, or refuses a graph.
    """

    def __init__(self, folder: Path, entry: FormatEntry, threads: int | None = None) -> None:
        self.specs = entry.state
        self._encode = load_graph(folder / entry.encode.file, threads)
        self._step = load_graph(folder / entry.step.file, threads)
        fixed = (spec.name for spec in self.specs if spec.initial is None)
        self._encoder_layers, self._decoder_layers = entry.encode.layers, entry.step.layers
        self._changing = [spec.name for spec in self.specs if spec.output is not None]
        self._encode_outputs = [*fixed, *self._encoder_layers]
        self._step_outputs = ["logits", *(s.output for s in self.specs if s.output is not None), *self._decoder_layers]
        self.layers: State = {}

    def encode(self, source: Int[np.ndarray, "B S"], mask: Bool[np.ndarray, "B S"]) -> State:
        """See Session.encode."""
        produced = iter(run_graph(self._encode, self._encode_outputs, {"source": source, "mask": mask}))
        state = {s.name: next(produced) if s.initial is None else _initial(s, len(source)) for s in self.specs}
        self.layers = dict(zip(self._encoder_layers, produced, strict=True))
        return state

    def step(
        self, tokens: Int[np.ndarray, " B"], position: int, state: State
    ) -> tuple[Float[np.ndarray, "B V"], State]:
        """See Session.step."""
        feeds = {"tokens": tokens, "position": np.array([position], np.int64), **state}
        logits, *produced = run_graph(self._step, self._step_outputs, feeds)
        updates = dict(zip(self._changing, produced, strict=False))
        self.layers = dict(zip(self._decoder_layers, produced[len(updates) :], strict=True))
        return logits, {**state, **updates}

    def reorder(self, state: State, rows: Int[np.ndarray, " N"]) -> State:
        """See Session.reorder."""
        return {spec.name: state[spec.name].take(rows, axis=spec.batch_axis) for spec in self.specs}

    def canonical(self, state: State) -> State:
        """See Session.canonical."""
        return state


def _initial(spec: StateTensor, batch: int) -> np.ndarray:
    """A state tensor before the first token."""
    shape = [batch if size == "batch" else int(size) for size in spec.shape]
    return np.full(shape, spec.initial, spec.dtype)
