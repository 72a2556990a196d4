"""ONNX Runtime as a Session: two graphs of a bundle, state in numpy arrays between steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from lite_runtime.manifest import FormatEntry, StateTensor
from lite_runtime.onnx_graph import load_graph, run_graph
from lite_runtime.session import State

# Beside the tensors: the encoded sentence each row belongs to. Rows of one sentence have the same fixed tensors.
_SENTENCE = "sentence"


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
        return {**state, _SENTENCE: np.arange(len(source))}

    def step(
        self, tokens: Int[np.ndarray, " B"], position: int, state: State
    ) -> tuple[Float[np.ndarray, "B V"], State]:
        """See Session.step."""
        feeds = {"tokens": tokens, "position": np.array([position], np.int64), **self.canonical(state)}
        logits, *produced = run_graph(self._step, self._step_outputs, feeds)
        updates = dict(zip(self._changing, produced, strict=False))
        self.layers = dict(zip(self._decoder_layers, produced[len(updates) :], strict=True))
        return logits, {**state, **updates}

    def reorder(self, state: State, rows: Int[np.ndarray, " N"]) -> State:
        """See Session.reorder. A move within sentences, as beam search's are, leaves their fixed tensors alone."""
        sentence = state[_SENTENCE][rows]
        within = np.array_equal(sentence, state[_SENTENCE])
        moving = [spec for spec in self.specs if not (within and spec.output is None)]
        return {**state, **{s.name: state[s.name].take(rows, s.batch_axis) for s in moving}, _SENTENCE: sentence}

    def canonical(self, state: State) -> State:
        """See Session.canonical."""
        return {spec.name: state[spec.name] for spec in self.specs}


def _initial(spec: StateTensor, batch: int) -> np.ndarray:
    """A state tensor before the first token."""
    shape = [batch if size == "batch" else int(size) for size in spec.shape]
    return np.full(shape, spec.initial, spec.dtype)
