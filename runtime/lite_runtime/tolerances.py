"""How far an exported graph may be from PyTorch, by precision, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """``tensors`` bounds the largest absolute difference of any logit or state; ``score`` that of a hypothesis."""

    tensors: float
    score: float
    reason: str


TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(
        tensors=1e-4,
        score=5e-5,
        reason="the same sums in another order; the breakages planted in the tests all exceed it",
    ),
}
