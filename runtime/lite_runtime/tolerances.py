"""How far an exported graph may be from its reference, by precision, and why."""

from __future__ import annotations

from dataclasses import dataclass

from lite_runtime.manifest import FormatEntry


@dataclass(frozen=True)
class Tolerance:
    """What parity allows.

    Attributes:
        tensors: largest absolute difference of any logit or state.
        layers: the same of what a layer gave: no norm has bounded it yet, and single channels stand far out.
        score: of a hypothesis (log-probability, length-normalised) whose tokens are equal.
        tokens: share of next tokens that may differ after the same prefix.
        hypotheses: share of whole hypotheses, greedy and beam, that may differ; 1 where they are only reported.
        bleu: points by which a test set's score may differ.
        reason: why.
    """

    tensors: float
    layers: float
    score: float
    tokens: float
    hypotheses: float
    bleu: float
    reason: str


TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(
        tensors=1e-4,
        layers=4e-4,
        score=5e-5,
        tokens=0.0,
        hypotheses=0.0,
        bleu=0.01,
        reason="the same sums in another order; the breakages planted in the tests all exceed it",
    ),
    "fp16": Tolerance(
        tensors=5e-2,
        layers=0.2,
        score=5e-3,
        tokens=0.005,
        hypotheses=1.0,
        bleu=0.3,
        reason="weights, and in Core ML every result, rounded to 11 bits",
    ),
    "int8": Tolerance(
        tensors=1.0,
        layers=4.0,
        score=5e-2,
        tokens=0.01,
        hypotheses=1.0,
        bleu=0.3,
        reason="weights of 8 bits, and activations too in ONNX and ExecuTorch",
    ),
    "int4": Tolerance(
        tensors=8.0,
        layers=32.0,
        score=0.2,
        tokens=0.07,
        hypotheses=1.0,
        bleu=1.5,
        reason="weights of 4 bits without training for it",
    ),
    "palette4": Tolerance(
        tensors=8.0,
        layers=32.0,
        score=0.5,
        tokens=0.2,
        hypotheses=1.0,
        bleu=5.0,
        reason="16 values for the weights of a group of channels, without training for it",
    ),
}


def tolerance_of(entry: FormatEntry) -> Tolerance:
    """The tolerance of one exported form."""
    return TOLERANCES[entry.precision]


def looser(a: Tolerance, b: Tolerance) -> Tolerance:
    """The one that allows more, for a comparison of two exported forms."""
    return max(a, b, key=lambda t: t.tensors)
