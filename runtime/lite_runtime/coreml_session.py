"""Core ML as a Session: Apple's predictor on macOS, the interpreter of the same package everywhere else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

from lite_runtime.bundle import BundleError
from lite_runtime.manifest import FormatEntry, Graph
from lite_runtime.mil_interpreter import load_package
from lite_runtime.quiet_coremltools import INSTALL, coremltools, quiet
from lite_runtime.rows import HELD, RowSession, StepResult

Arrays = dict[str, np.ndarray]


@runtime_checkable
class Function(Protocol):
    """One function of a package, and the states it keeps."""

    states: dict[str, tuple[int, ...]]

    def new_state(self) -> Any:
        """Fresh states."""
        ...

    def copy_state(self, state: Any) -> Any:
        """The same states, apart from the first."""
        ...

    def __call__(self, inputs: Arrays, state: Any = None) -> Arrays:
        """Outputs by name; ``state`` is changed in place."""
        ...


def coreml_session(folder: Path, entry: FormatEntry, exact_fp16: bool = False) -> RowSession:
    """A bundle's Core ML format, loaded.

    Args:
        exact_fp16: round every float16 result as a device does; for the interpreter only.

    Raises:
        BundleError: coremltools is not installed, or a package is damaged or uses an unknown operation.
    """
    if sys.platform == "darwin":
        encode, step = (PredictorFunction(folder / graph.file, graph.function) for graph in (entry.encode, entry.step))
    else:
        encode, step = _interpreted(folder, entry, exact_fp16)
    return RowSession(CoreMlProgram(encode, step, entry), entry.state)


def _interpreted(folder: Path, entry: FormatEntry, exact_fp16: bool) -> list[Function]:
    # One package of two functions is read once.
    packages = {file: load_package(folder / file, exact_fp16) for file in {entry.encode.file, entry.step.file}}
    functions: list[Function] = []
    for graph in (entry.encode, entry.step):
        found = packages[graph.file].get(graph.function or "main")
        if found is None:
            raise BundleError(f"{graph.file} has no function {graph.function}: export again")
        functions.append(found)
    return functions


class CoreMlProgram:
    """A RowProgram over two functions. Core ML's names may not hold dots: tensors pair with names by their order."""

    def __init__(self, encode: Function, step: Function, entry: FormatEntry) -> None:
        self._encode, self._step = encode, step
        explicit = [spec for spec in entry.state if not spec.held]
        fixed = [spec.name for spec in explicit if spec.initial is None]
        self._source, self._mask = (spec.name for spec in entry.encode.inputs)
        self._tokens, self._position, *inputs = (spec.name for spec in entry.step.inputs)
        self._fixed = dict(zip(fixed, (spec.name for spec in entry.encode.outputs), strict=False))
        self._inputs = {spec.name: name for spec, name in zip(explicit, inputs, strict=True)}
        self._changed = {spec.name: spec.output for spec in explicit if spec.output}
        self._encoder_layers, self._decoder_layers = _layers(entry.encode), _layers(entry.step)
        self._logits = entry.step.outputs[0].name

    def encode(self, source: Int[np.ndarray, "1 S"], mask: Bool[np.ndarray, "1 S"]) -> tuple[Arrays, Arrays]:
        """See RowProgram.encode."""
        found = self._encode({self._source: source.astype(np.int32), self._mask: mask.astype(np.int32)})
        return _renamed(found, self._fixed), _renamed(found, self._encoder_layers)

    def step(self, token: Int[np.ndarray, " 1"], position: int, state: dict[str, Any]) -> StepResult:
        """See RowProgram.step."""
        feeds = {name: state[key] for key, name in self._inputs.items()}
        feeds[self._tokens], feeds[self._position] = token.astype(np.int32), np.array([position], np.int32)
        found = self._step(feeds, state.get(HELD))
        return StepResult(found[self._logits], _renamed(found, self._changed), _renamed(found, self._decoder_layers))

    def hold(self) -> Any:
        """See RowProgram.hold."""
        return self._step.new_state() if self._step.states else None

    def fork(self, held: Any) -> Any:
        """See RowProgram.fork."""
        return self._step.copy_state(held)


class PredictorFunction:
    """A function run by Core ML itself, through coremltools: macOS 15 or later."""

    def __init__(self, path: Path, name: str | None) -> None:
        try:
            models = coremltools("models")
        except ModuleNotFoundError:
            raise BundleError(f"Core ML packages need coremltools: {INSTALL}") from None
        try:
            with quiet():
                self._model = models.MLModel(str(path), function_name=name)
        except (OSError, RuntimeError, ValueError) as error:
            raise BundleError(f"{path} is damaged: copy it again ({error})") from None
        if self._model.__proxy__ is None:
            # coremltools only warns of it, and fails at the first prediction.
            reason = self._model._framework_error or "there is no Core ML here"
            raise BundleError(f"Core ML does not load {path}: {reason}")
        description = self._model.get_spec().description
        description = next((entry for entry in description.functions if entry.name == name), description)
        self.states = {state.name: tuple(state.type.stateType.arrayType.shape) for state in description.state}

    def new_state(self) -> Any:
        """See Function.new_state."""
        return self._model.make_state()

    def copy_state(self, state: Any) -> Any:
        """See Function.copy_state."""
        copy = self.new_state()
        for name in self.states:
            copy.write_state(name, state.read_state(name))
        return copy

    def __call__(self, inputs: Arrays, state: Any = None) -> Arrays:
        """See Function."""
        return self._model.predict(inputs, state)


def _layers(graph: Graph) -> dict[str, str]:
    """Names of what each layer gave, and of the outputs that hold it: the last ones."""
    return dict(zip(graph.layers, (spec.name for spec in graph.outputs[-len(graph.layers) :]), strict=True))


def _renamed(arrays: Arrays, names: dict[str, str]) -> Arrays:
    return {name: arrays[output] for name, output in names.items()}
