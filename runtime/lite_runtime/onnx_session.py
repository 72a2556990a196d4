"""ONNX Runtime as a Session: two graphs of a bundle, state in numpy arrays between steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from lite_runtime.bundle import BundleError
from lite_runtime.manifest import FormatEntry, Graph, StateTensor
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
        self._encode = _load(folder, entry.encode, threads)
        self._step = _load(folder, entry.step, threads)
        self._fixed = [spec.name for spec in self.specs if spec.initial is None]
        self._changing = [spec for spec in self.specs if spec.output is not None]
        self._encoder_layers, self._decoder_layers = entry.encode.layers, entry.step.layers
        self.layers: State = {}

    def encode(self, source: Int[np.ndarray, "B S"], mask: Bool[np.ndarray, "B S"]) -> State:
        """See Session.encode."""
        produced = iter(self._encode.run([*self._fixed, *self._encoder_layers], {"source": source, "mask": mask}))
        state = {s.name: next(produced) if s.initial is None else _initial(s, len(source)) for s in self.specs}
        self.layers = dict(zip(self._encoder_layers, produced, strict=True))
        return state

    def step(
        self, tokens: Int[np.ndarray, " B"], position: int, state: State
    ) -> tuple[Float[np.ndarray, "B V"], State]:
        """See Session.step."""
        feeds = {"tokens": tokens, "position": np.array([position], np.int64), **state}
        names = ["logits", *(spec.output for spec in self._changing), *self._decoder_layers]
        logits, *produced = self._step.run(names, feeds)
        updates = {spec.name: tensor for spec, tensor in zip(self._changing, produced, strict=False)}
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


def _load(folder: Path, graph: Graph, threads: int | None) -> Any:
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    # Warnings of the optimiser are not the user's; errors arrive as exceptions.
    options.log_severity_level = 3
    refusals = runtime.capi.onnxruntime_pybind11_state
    try:
        return runtime.InferenceSession(folder / graph.file, options, providers=["CPUExecutionProvider"])
    except (
        refusals.Fail,
        refusals.InvalidArgument,
        refusals.InvalidGraph,
        refusals.InvalidProtobuf,
        refusals.NoSuchFile,
        refusals.NotImplemented,
        refusals.RuntimeException,
    ) as error:
        raise BundleError(f"ONNX Runtime cannot load {graph.file}: {error}; export the bundle again") from None


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise BundleError("ONNX Runtime is not installed: pip install 'lite-export[onnx]'") from None
    return onnxruntime
