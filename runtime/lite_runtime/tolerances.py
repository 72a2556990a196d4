"""How far an exported graph may be from its reference, by precision, and why."""

from __future__ import annotations

from dataclasses import dataclass

from lite_runtime.manifest import FormatEntry


@dataclass(frozen=True)
class Tolerance:
    """What parity allows.

    Attributes:
        tensors: largest absolute difference of any logit, state or layer output.
        score: of a hypothesis (log-probability, length-normalised) whose tokens are equal.
        tokens: share of next tokens that may differ after the same prefix.
        hypotheses: share of whole hypotheses, greedy and beam, that may differ; 1 where they are only reported.
        bleu: points by which a test set's score may differ.
        reason: why.
    """

    tensors: float
    score: float
    tokens: float
    hypotheses: float
    bleu: float
    reason: str


TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(
        tensors=1e-4,
        score=5e-5,
        tokens=0.0,
        hypotheses=0.0,
        bleu=0.01,
        reason="the same sums in another order; the breakages planted in the tests all exceed it",
    ),
}


def tolerance_of(entry: FormatEntry) -> Tolerance:
    """The tolerance of one exported form."""
    return TOLERANCES[entry.precision]


def looser(a: Tolerance, b: Tolerance) -> Tolerance:
    """The one that allows more, for a comparison of two exported forms."""
    return max(a, b, key=lambda t: t.tensors)
