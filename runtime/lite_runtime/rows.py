"""Sessions over programs that take one row at a time: ExecuTorch and Core ML, whose shapes are mostly fixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from lite_runtime.manifest import StateTensor
from lite_runtime.session import State

# Where a row's state keeps what the runtime holds itself.
HELD = "held"


class StepResult(NamedTuple):
    """Logits (1, V), the explicit state tensors that changed, and what each layer gave."""

    logits: np.ndarray
    changed: dict[str, np.ndarray]
    layers: dict[str, np.ndarray]


@runtime_checkable
class RowProgram(Protocol):
    """What a runtime offers for one row. Arrays have the shapes of the manifest, no batch axis."""

    def encode(
        self, source: Int[np.ndarray, "1 S"], mask: Bool[np.ndarray, "1 S"]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The fixed state, and what each encoder layer gave."""
        ...

    def step(self, token: Int[np.ndarray, " 1"], position: int, state: dict[str, Any]) -> StepResult:
        """One token further. ``state[HELD]`` is the row's held state, if any, and is changed in place."""
        ...

    def hold(self) -> Any:
        """A fresh held state for one row, or None where all state is explicit."""
        ...

    def fork(self, held: Any) -> Any:
        """A copy of a held state.

        Raises:
            BundleError: this runtime cannot copy what it holds.
        """
        ...


class RowSession:
    """A Session that runs a ``RowProgram`` row after row. Its state is a list of rows' arrays under each name."""

    def __init__(self, program: RowProgram, specs: Sequence[StateTensor]) -> None:
        self.program, self.specs = program, specs
        self.layers: State = {}
        self._explicit = [spec for spec in specs if not spec.held]

    def encode(self, source: Int[np.ndarray, "B S"], mask: Bool[np.ndarray, "B S"]) -> State:
        """See Session.encode."""
        rows = [self.program.encode(source[i : i + 1], mask[i : i + 1]) for i in range(len(source))]
        self.layers = _stacked([layers for _, layers in rows])
        state: State = {}
        for spec in self._explicit:
            state[spec.name] = [_initial(spec) if spec.initial is not None else fixed[spec.name] for fixed, _ in rows]
        held = [self.program.hold() for _ in rows]
        if any(h is not None for h in held):
            state[HELD] = held
        return state

    def step(
        self, tokens: Int[np.ndarray, " B"], position: int, state: State
    ) -> tuple[Float[np.ndarray, "B V"], State]:
        """See Session.step. Held state changes in place: an older state cannot be stepped again."""
        rows = [
            self.program.step(tokens[i : i + 1], position, {name: values[i] for name, values in state.items()})
            for i in range(len(tokens))
        ]
        self.layers = _stacked([{n: t[0] for n, t in row.layers.items()} for row in rows])
        changed = {name: [row.changed[name] for row in rows] for name in rows[0].changed}
        return np.concatenate([row.logits for row in rows]), {**state, **changed, "position": [position] * len(rows)}

    def reorder(self, state: State, rows: Int[np.ndarray, " N"]) -> State:
        """See Session.reorder."""
        moved = {name: [values[i] for i in rows] for name, values in state.items() if name != HELD}
        if HELD in state:
            moved[HELD] = self._reordered(state[HELD], rows)
        return moved

    def _reordered(self, held: list[Any], rows: Int[np.ndarray, " N"]) -> list[Any]:
        """A held state goes to the first row that wants it; others get copies of it."""
        wanted = [int(row) for row in rows]
        return [self.program.fork(held[row]) if row in wanted[:i] else held[row] for i, row in enumerate(wanted)]

    def canonical(self, state: State) -> State:
        """See Session.canonical: rows stacked, slots cut to those that count."""
        count = state["position"][0] + 1 if "position" in state else 0
        result: State = {}
        for spec in self._explicit:
            tensors = state[spec.name]
            if spec.slots is not None:
                tensors = [t[..., :count, :] for t in tensors]
            result[spec.name] = np.stack(tensors)
        return result


def _initial(spec: StateTensor) -> np.ndarray:
    """A state tensor before the first token."""
    return np.full([int(size) for size in spec.shape], spec.initial, spec.dtype)


def _stacked(rows: Sequence[dict[str, np.ndarray]]) -> State:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
