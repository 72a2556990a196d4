"""The parity ladder: does an exported model compute what PyTorch computes?

1. outputs: the encoder and the first step  2. steps: logits and every state tensor of whole decodes
3. tokens: greedy and beam hypotheses and their scores

A rung that fails names the first step and tensor that differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np

from lite_runtime.golden import GOLDEN_BEAM, GoldenHypothesis, GoldenSentence
from lite_runtime.manifest import Decoding, Limits, Part, StateTensor, TokenIds
from lite_runtime.recording import Moment, Script, play
from lite_runtime.search import Hypothesis, SearchOptions, search
from lite_runtime.session import Session, State
from lite_runtime.tolerances import Tolerance

RungName = Literal["outputs", "steps", "tokens"]


class Breach(Part):
    """Where a rung first failed. Step -1 is the encoder."""

    batch: int
    step: int
    tensor: str
    difference: float | None
    detail: str

    def __str__(self) -> str:
        where = "encoder" if self.step < 0 else f"step {self.step}"
        size = "" if self.difference is None else f", off by {self.difference:.3g}"
        return f"batch {self.batch}, {where}, {self.tensor}{size}: {self.detail}"


class Rung(Part):
    """One rung's result: ``checked`` comparisons, the worst difference seen, and the first breach."""

    name: RungName
    passed: bool
    checked: int
    worst: float
    worst_tensor: str
    tolerance: float
    breach: Breach | None


class _Watch:
    """Collects differences of one rung."""

    def __init__(self, name: RungName, tolerance: float) -> None:
        self.name, self.tolerance = name, tolerance
        self.checked, self.worst, self.worst_tensor = 0, 0.0, ""
        self.breach: Breach | None = None

    def compare(self, batch: int, step: int, tensor: str, expected: np.ndarray, actual: np.ndarray) -> None:
        """Compare two tensors; a NaN or another shape is a breach whatever the tolerance."""
        self.checked += 1
        if expected.shape != actual.shape:
            self.fail(batch, step, tensor, None, f"shape {actual.shape} instead of {expected.shape}")
            return
        difference = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
        worst = float(difference.max(initial=0.0))
        if not worst <= self.tolerance:
            row = np.unravel_index(int(np.nan_to_num(difference, nan=np.inf).argmax()), difference.shape)
            self.fail(batch, step, tensor, worst, f"largest at {tuple(map(int, row))}")
        if not worst <= self.worst:
            self.worst, self.worst_tensor = worst, tensor

    def fail(self, batch: int, step: int, tensor: str, difference: float | None, detail: str) -> None:
        """Keep the first breach: later ones follow from it."""
        if self.breach is None:
            self.breach = Breach(batch=batch, step=step, tensor=tensor, difference=difference, detail=detail)

    def result(self) -> Rung:
        """What was seen."""
        return Rung(
            name=self.name,
            passed=self.breach is None and self.checked > 0,
            checked=self.checked,
            worst=self.worst,
            worst_tensor=self.worst_tensor,
            tolerance=self.tolerance,
            breach=self.breach,
        )


Reference = tuple[Script, Iterable[Moment]]


def check_steps(
    session: Session,
    references: Iterable[Reference],
    specs: Sequence[StateTensor],
    tolerance: Tolerance,
    on_batch: Callable[[], None] = lambda: None,
) -> tuple[Rung, Rung]:
    """Rungs 1 and 2: play every script and compare each moment with the reference's.

    Tensors are compared in the order a step computes them (layer by layer, logits last), so the first
    difference is the one nearest to its cause.
    """
    outputs, steps = _Watch("outputs", tolerance.tensors), _Watch("steps", tolerance.tensors)
    order = sorted(specs, key=lambda s: (s.layer is None, s.layer or 0))
    for number, (script, moments) in enumerate(references):
        for expected, actual in zip(moments, play(session, script), strict=True):
            watches = (outputs, steps) if expected.step <= 0 else (steps,)
            for watch in watches:
                _compare_moment(watch, number, expected, actual, [s.name for s in order])
        on_batch()
    return outputs.result(), steps.result()


def _compare_moment(watch: _Watch, batch: int, expected: Moment, actual: Moment, names: Sequence[str]) -> None:
    for name in names:
        watch.compare(batch, expected.step, name, _named(expected.state, name), _named(actual.state, name))
    if expected.logits is not None and actual.logits is not None:
        watch.compare(batch, expected.step, "logits", expected.logits, actual.logits)


def _named(state: State, name: str) -> np.ndarray:
    return np.asarray(state[name])


def check_tokens(
    session: Session,
    golden: Sequence[GoldenSentence],
    tokens: TokenIds,
    limits: Limits,
    decoding: Decoding,
    tolerance: Tolerance,
    on_batch: Callable[[], None] = lambda: None,
    batch_size: int = 10,
) -> Rung:
    """Rung 3: greedy and beam hypotheses equal token for token, scores within the tolerance."""
    watch = _Watch("tokens", tolerance.score)
    for first in range(0, len(golden), batch_size):
        part = golden[first : first + batch_size]
        for beam in (1, GOLDEN_BEAM):
            found = translate_golden(session, [s.source for s in part], tokens, limits, decoding, beam)
            for index, (sentence, hypotheses) in enumerate(zip(part, found, strict=True)):
                wanted = (sentence.greedy,) if beam == 1 else sentence.beam
                _compare_hypotheses(watch, first + index, beam, wanted, hypotheses)
        on_batch()
    return watch.result()


def translate_golden(
    session: Session,
    sources: Sequence[tuple[int, ...]],
    tokens: TokenIds,
    limits: Limits,
    decoding: Decoding,
    beam: int,
) -> list[list[Hypothesis]]:
    """The search that records golden sentences and that checks them."""
    options = SearchOptions(
        beam=beam, nbest=beam, length_penalty=decoding.length_penalty, max_length=limits.max_target - 1
    )
    longest = [decoding.longest(len(source), limits) for source in sources]
    return search(session, sources, tokens, options, max_lengths=longest)


def _compare_hypotheses(
    watch: _Watch, sentence: int, beam: int, wanted: Sequence[GoldenHypothesis], found: Sequence[Hypothesis]
) -> None:
    kind = "greedy" if beam == 1 else f"beam {beam}"
    if len(wanted) != len(found):
        watch.fail(sentence, 0, kind, None, f"{len(found)} hypotheses instead of {len(wanted)}")
    for rank, (expected, actual) in enumerate(zip(wanted, found, strict=False)):
        if expected.tokens != actual.tokens:
            step = _first_difference(expected.tokens, actual.tokens)
            watch.fail(sentence, step, f"{kind} hypothesis {rank}", None, f"sentence {sentence}: other tokens")
        watch.compare(
            sentence, len(expected.tokens) - 1, f"{kind} score", np.array(expected.score), np.array(actual.score)
        )


def _first_difference(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
