"""The seam: what a runtime must offer so that search, parity and timing are written once above it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

# Named state tensors, opaque to search: each backend may hold its own kind of array. ``Session.canonical`` has numpy.
State = dict[str, Any]


class SessionError(ValueError):
    """A runtime failed while it ran a graph; the message is its own."""


@runtime_checkable
class Session(Protocol):
    """One loaded model. Sessions keep no sentence of their own: all state is in the argument.

    Shapes: B rows (sentences x beams), S source tokens, V target vocabulary.

    Attributes:
        layers: what each layer gave in the last call, by name: encoder layers (B, S, C), decoder layers (B, C).
    """

    layers: State

    def encode(self, source: Int[np.ndarray, "B S"], mask: Bool[np.ndarray, "B S"]) -> State:
        """Run the encoder once; the state before the first target token. ``mask`` is True at real tokens."""
        ...

    def step(
        self, tokens: Int[np.ndarray, " B"], position: int, state: State
    ) -> tuple[Float[np.ndarray, "B V"], State]:
        """Advance one target position: logits of the next token, and the state that includes ``tokens``."""
        ...

    def reorder(self, state: State, rows: Int[np.ndarray, " N"]) -> State:
        """The state whose row i is the old row ``rows[i]``: beam search's move, and its expansion B -> N."""
        ...

    def canonical(self, state: State) -> State:
        """The state as the reference holds it: the same names and shapes whatever the backend's layout.

        Tensors that the runtime keeps out of reach are absent.
        """
        ...
