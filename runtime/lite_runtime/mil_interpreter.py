"""Core ML packages without a Mac: the ML program of a saved ``.mlpackage``, read back from disk and run in numpy.

What this can prove: that the file on disk means what the model means. The interpreter knows nothing of how the
package was made: it reads the specification and the weight file, decodes compressed weights by their formulas, and
follows every operation, cast and state. A dropped mask, a swapped cache, a wrongly decoded table shows here.

What it cannot prove: that Core ML accepts the package, how Apple's CPU, GPU and Neural Engine kernels round, and how
fast they are. Sums are made in float32. By default float16 arithmetic is widened to float32 too, which is fast;
with ``exact_fp16`` every float16 result is rounded to float16, as on a device that adds up in float32. States are
stored in the type the package says (float16) in both modes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lite_runtime.bundle import BundleError
from lite_runtime.mil_ops import OPS
from lite_runtime.quiet_coremltools import INSTALL, coremltools, quiet

Arrays = dict[str, np.ndarray]
_KINDS: dict[str, type] = {"FLOAT32": np.float32, "INT32": np.int32}


class Port(NamedTuple):
    """An input: its type, and the least and most of every axis."""

    dtype: type
    least: tuple[int, ...]
    most: tuple[int, ...]

    def accepts(self, value: np.ndarray) -> bool:
        """Whether Core ML would take ``value``."""
        sizes = zip(self.least, value.shape, self.most, strict=False)
        return (
            value.dtype == self.dtype
            and value.ndim == len(self.most)
            and all(low <= n <= high for low, n, high in sizes)
        )

    def __str__(self) -> str:
        sizes = [str(a) if a == b else f"{a} to {b}" for a, b in zip(self.least, self.most, strict=True)]
        return f"{np.dtype(self.dtype)} ({', '.join(sizes)})"


@dataclass(frozen=True)
class Instruction:
    """One operation with its constants bound; the rest comes from, and goes to, numbered places."""

    function: Callable[..., Any]
    constants: dict[str, Any]
    sources: tuple[tuple[str, int | tuple[int, ...]], ...]
    targets: tuple[int, ...]
    rounds: tuple[bool, ...]

    def run(self, values: list[Any]) -> None:
        """Read from ``values`` and write there."""
        inputs = {
            name: [values[i] for i in place] if isinstance(place, tuple) else values[place]
            for name, place in self.sources
        }
        result = self.function(**inputs, **self.constants)
        results = result if isinstance(result, tuple) else (result,)
        for target, value, rounded in zip(self.targets, results, self.rounds, strict=True):
            values[target] = value.astype(np.float16).astype(np.float32) if rounded else value


class MilFunction:
    """One function of a package.

    Attributes:
        inputs: what it takes, states apart.
        outputs: names of what it gives.
        states: shape of every state.
    """

    def __init__(self, name: str, function: Any, description: Any, exact_fp16: bool) -> None:
        self.inputs = {feature.name: _port(feature.type.multiArrayType) for feature in description.input}
        self.outputs = [feature.name for feature in description.output]
        arrays = {feature.name: feature.type.stateType.arrayType for feature in description.state}
        self.states = {name: tuple(int(n) for n in array.shape) for name, array in arrays.items()}
        plan = _Planner(name, exact_fp16)
        self._feeds = {feed: plan.place(feed) for feed in function.inputs}
        for operation in function.operations:
            plan.add(operation)
        self._plan, self._values = plan.instructions, plan.values
        self._results = {var.name: plan.place(var.name) for var in function.outputs}

    def new_state(self) -> Arrays:
        """States as Core ML makes them: zeros, in float16."""
        return {name: np.zeros(shape, np.float16) for name, shape in self.states.items()}

    def copy_state(self, state: Arrays) -> Arrays:
        """The same states, apart from the first."""
        return {name: value.copy() for name, value in state.items()}

    def __call__(self, inputs: Arrays, state: Arrays | None = None) -> Arrays:
        """Run once.

        Args:
            state: from ``new_state``, changed in place.

        Raises:
            BundleError: an input is missing, too many, or not of the declared type and shape, or there is no state.
        """
        if (state or {}).keys() != self.states.keys():
            raise BundleError(f"keeps the states {', '.join(self.states) or 'none'}: pass what new_state made")
        if inputs.keys() != self.inputs.keys():
            raise BundleError(f"takes the inputs {', '.join(self.inputs)}; got {', '.join(inputs) or 'nothing'}")
        for name, port in self.inputs.items():
            if not port.accepts(inputs[name]):
                got = f"{inputs[name].dtype} {inputs[name].shape}"
                raise BundleError(f"input {name} is {got}; the package declares {port}")
        values = self._values.copy()
        for name, value in {**inputs, **(state or {})}.items():
            values[self._feeds[name]] = value
        for instruction in self._plan:
            instruction.run(values)
        return {name: values[self._results[name]] for name in self.outputs}


class _Planner:
    """Turns operations into instructions; what depends on constants alone is computed here, once."""

    def __init__(self, function: str, exact_fp16: bool) -> None:
        self.function, self.exact_fp16 = function, exact_fp16
        self.places: dict[str, int] = {}
        self.values: list[Any] = []
        self.known: set[int] = set()
        self.instructions: list[Instruction] = []

    def place(self, name: str) -> int:
        """Where the value of that name lives."""
        if name not in self.places:
            self.places[name] = len(self.values)
            self.values.append(None)
        return self.places[name]

    def add(self, operation: Any) -> None:
        """Append an operation, or evaluate it where all it reads is known."""
        targets = tuple(self.place(var.name) for var in operation.outputs)
        if operation.op_type == "const":
            self.values[targets[0]] = _constant(operation.outputs[0].val)
            self.known.update(targets)
            return
        function = self._function(operation)
        constants, sources = {}, []
        for name, argument in operation.inputs.items():
            if argument is None:
                continue
            place = self._places(argument)
            if self._is_known(place):
                constants[name] = self._value(place)
            else:
                sources.append((name, place))
        rounds = tuple(self.exact_fp16 and _is_float16(var) for var in operation.outputs)
        instruction = Instruction(function, constants, tuple(sources), targets, rounds)
        if sources:
            self.instructions.append(instruction)
        else:
            instruction.run(self.values)
            self.known.update(targets)

    def _function(self, operation: Any) -> Callable[..., Any]:
        kind = operation.op_type
        if kind not in OPS:
            raise BundleError(f"function {self.function} uses the operation {kind}, which this interpreter lacks")
        function = OPS[kind]
        used = {name for name, argument in operation.inputs.items() if argument is not None}
        if unknown := used - set(inspect.signature(function).parameters):
            raise BundleError(f"{kind} with {', '.join(sorted(unknown))} is more than this interpreter knows")
        if kind == "cast":
            return self._cast
        return function

    def _cast(self, x: np.ndarray, dtype: str) -> np.ndarray:
        # Values that are float16 in the program are float32 here, rounded or not.
        return OPS["cast"](x, "fp32" if dtype == "fp16" else dtype)

    def _places(self, argument: Any) -> int | tuple[int, ...]:
        if isinstance(argument, (list, tuple)):
            return tuple(self.place(var.name) for var in argument)
        return self.place(argument.name)

    def _is_known(self, place: int | tuple[int, ...]) -> bool:
        return self.known.issuperset(place if isinstance(place, tuple) else (place,))

    def _value(self, place: int | tuple[int, ...]) -> Any:
        return [self.values[i] for i in place] if isinstance(place, tuple) else self.values[place]


def load_package(path: Path, exact_fp16: bool = False) -> dict[str, MilFunction]:
    """The functions of a package by name; one that has no names for them holds ``main``.

    Args:
        exact_fp16: round every float16 result; slower.

    Raises:
        BundleError: coremltools is not installed, the package is damaged, or it uses an unknown operation.
    """
    program, description = _read(path)
    described = {entry.name: entry for entry in description.functions} or {"main": description}
    return {
        name: MilFunction(name, function, described[name], exact_fp16) for name, function in program.functions.items()
    }


def _read(path: Path) -> tuple[Any, Any]:
    """A package's program with its weights, and the description of its functions."""
    try:
        tools, milproto = coremltools(), coremltools("converters.mil.frontend.milproto.load")
    except ModuleNotFoundError:
        raise BundleError(f"Core ML packages need coremltools: {INSTALL}") from None
    decode_error = import_module("google.protobuf.message").DecodeError
    if not path.is_dir():
        raise BundleError(f"no Core ML package at {path}: copy it again")
    try:
        with quiet():
            model = tools.models.MLModel(str(path), skip_model_load=True)
            content = model.get_spec()
            program = milproto.load(content, content.specificationVersion, model.weights_dir or "")
    except (decode_error, RuntimeError, ValueError) as error:
        # A package is JSON, protobuf and blobs; their readers share no type of error.
        reason = str(error).strip().partition("\n")[0]
        raise BundleError(f"{path} is damaged: copy it again ({reason})") from None
    return program, content.description


def _constant(value: Any) -> np.ndarray | str:
    """A constant as operations take it: float16 widened, integers narrower than a byte made bytes."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    # coremltools marks them so in numpy's metadata.
    return array.astype(array.dtype.type) if array.dtype.metadata else array


def _is_float16(var: Any) -> bool:
    return var.dtype.__name__ == "fp16"


def _port(array: Any) -> Port:
    """An input's declaration in the specification."""
    kind = array.ArrayDataType.Name(array.dataType)
    if kind not in _KINDS:
        raise BundleError(f"an input of type {kind} is more than this interpreter knows")
    ranges = [(r.lowerBound, r.upperBound) for r in array.shapeRange.sizeRanges] or [(n, n) for n in array.shape]
    return Port(_KINDS[kind], tuple(low for low, _ in ranges), tuple(high for _, high in ranges))
