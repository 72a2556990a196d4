"""The parity ladder: does an exported model compute what the reference computes?

1. outputs: the encoder and the first step  2. steps: logits and every state tensor of whole decodes
3. layers: what each layer gave, so that a difference has an address
4. tokens: the best next token after the same prefix  5. hypotheses: greedy and beam search, with their scores

6. one call: a graph that holds the whole search, where a format has one. The last rung, translation quality, is in
``quality``. A rung that fails names the first step and tensor that differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from lite_runtime.golden import GOLDEN_BEAM, GoldenHypothesis, GoldenSentence
from lite_runtime.manifest import Decoding, Limits, Part, StateTensor, TokenIds
from lite_runtime.recording import Moment, Script, play
from lite_runtime.search import Hypothesis, SearchError, SearchOptions, search
from lite_runtime.session import Session, SessionError
from lite_runtime.tolerances import Tolerance

RungName = Literal["outputs", "steps", "layers", "tokens", "hypotheses", "one call", "bleu"]


@runtime_checkable
class Scored(Protocol):
    """A hypothesis, wherever it comes from."""

    @property
    def tokens(self) -> tuple[int, ...]: ...
    @property
    def score(self) -> float: ...


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
    """One rung's result: ``checked`` comparisons, the worst seen, and the first breach.

    ``worst`` is what ``tolerance`` bounds: an absolute difference (outputs, steps, layers), the share that differs
    (tokens, hypotheses), or points of BLEU. ``at`` says where the worst was, or more about it.
    """

    name: RungName
    passed: bool
    checked: int
    worst: float
    at: str
    tolerance: float
    breach: Breach | None


class Differences:
    """Collects absolute differences of tensors."""

    def __init__(self, name: RungName, tolerance: float) -> None:
        self.name, self.tolerance = name, tolerance
        self.checked, self.worst, self.at = 0, 0.0, ""
        self.breach: Breach | None = None

    def compare(self, batch: int, step: int, tensor: str, expected: np.ndarray, actual: np.ndarray) -> None:
        """Compare two tensors; a NaN or another shape is a breach whatever the tolerance."""
        if expected.shape != actual.shape:
            self.checked += 1
            self.fail(batch, step, tensor, None, f"shape {actual.shape} instead of {expected.shape}")
            return
        difference = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
        worst = float(difference.max(initial=0.0))
        detail = ""
        if not worst <= self.tolerance:
            place = np.unravel_index(int(np.nan_to_num(difference, nan=np.inf).argmax()), difference.shape)
            detail = f"largest at {tuple(map(int, place))}"
        self.add(batch, step, tensor, worst, detail)

    def add(self, batch: int, step: int, tensor: str, worst: float, detail: str) -> None:
        """Count a tensor whose largest difference is known; ``detail`` says more about it."""
        self.checked += 1
        if not worst <= self.tolerance:
            self.fail(batch, step, tensor, worst, detail)
        if not worst <= self.worst:
            self.worst, self.at = worst, tensor

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
            at=self.at,
            tolerance=self.tolerance,
            breach=self.breach,
        )


@dataclass
class Shares:
    """Counts what is equal and what is not; up to ``tolerance`` of it may differ."""

    name: RungName
    tolerance: float
    checked: int = 0
    different: int = 0
    first: Breach | None = None
    remarks: list[str] = field(default_factory=list)

    def count(self, equal: bool, batch: int, step: int, what: str, detail: str) -> None:
        """One comparison; ``what`` and ``detail`` describe it where it is not equal."""
        self.checked += 1
        if not equal:
            self.different += 1
            self.first = self.first or Breach(batch=batch, step=step, tensor=what, difference=None, detail=detail)

    def result(self) -> Rung:
        """What was seen."""
        share = self.different / max(1, self.checked)
        passed = self.checked > 0 and share <= self.tolerance
        return Rung(
            name=self.name,
            passed=passed,
            checked=self.checked,
            worst=share,
            at=", ".join([f"{self.different} differ", *self.remarks]),
            tolerance=self.tolerance,
            breach=None if passed else self.first,
        )


Reference = tuple[Script, Iterable[Moment]]


def check_steps(
    session: Session,
    references: Iterable[Reference],
    specs: Sequence[StateTensor],
    tolerance: Tolerance,
    pad: int,
    on_batch: Callable[[], None] = lambda: None,
) -> tuple[Rung, ...]:
    """Rungs 1 to 4: play every script and compare each moment with the reference's.

    Tensors are compared in the order a step computes them (layer by layer, logits last), so the first
    difference is the one nearest to its cause.
    """
    outputs, steps = Differences("outputs", tolerance.tensors), Differences("steps", tolerance.tensors)
    layers, tokens = Differences("layers", tolerance.layers), Shares("tokens", tolerance.tokens)
    names = [s.name for s in sorted(specs, key=lambda s: (s.layer is None, s.layer or 0))]
    for number, (script, moments) in enumerate(references):
        played = play(session, script)
        for expected in moments:
            try:
                actual = next(played)
            except SessionError as error:
                for watch in (outputs, steps, layers):
                    watch.fail(number, expected.step, "the graph itself", None, str(error))
                break
            for watch in (outputs, steps) if expected.step <= 0 else (steps,):
                _compare_states(watch, number, expected, actual, names)
            for name, tensor in expected.layers.items():
                layers.compare(number, expected.step, name, tensor, np.asarray(actual.layers[name]))
            if expected.logits is not None and actual.logits is not None:
                active = script.fed[expected.step] != pad
                _count_tokens(tokens, number, expected.step, expected.logits[active], actual.logits[active])
        on_batch()
    return outputs.result(), steps.result(), layers.result(), tokens.result()


def _compare_states(watch: Differences, batch: int, expected: Moment, actual: Moment, names: Sequence[str]) -> None:
    # What a runtime keeps out of reach is checked by the logits of the steps that follow.
    for name in names:
        if name in actual.state:
            wanted, found = np.asarray(expected.state[name]), np.asarray(actual.state[name])
            watch.compare(batch, expected.step, name, wanted, found)
    if expected.logits is not None and actual.logits is not None:
        watch.compare(batch, expected.step, "logits", expected.logits, actual.logits)


def _count_tokens(
    watch: Shares, batch: int, step: int, expected: Float[np.ndarray, "B V"], actual: Float[np.ndarray, "B V"]
) -> None:
    for row, (wanted, found) in enumerate(zip(expected.argmax(-1), actual.argmax(-1), strict=True)):
        watch.count(bool(wanted == found), batch, step, "best token", f"row {row}: {found} instead of {wanted}")


class _Search(NamedTuple):
    """One way to search: its beam, the hypotheses it finds for some sentences, and those it should find for one."""

    beam: int
    run: Callable[[Sequence[GoldenSentence]], Sequence[Sequence[Scored]]]
    wanted: Callable[[GoldenSentence], Sequence[GoldenHypothesis]]


def check_hypotheses(
    session: Session,
    golden: Sequence[GoldenSentence],
    tokens: TokenIds,
    limits: Limits,
    decoding: Decoding,
    tolerance: Tolerance,
    beams: Sequence[int] = (1, GOLDEN_BEAM),
    on_batch: Callable[[], None] = lambda: None,
    batch_size: int = 10,
) -> Rung:
    """Rung 5: greedy and beam hypotheses equal token for token, their scores within the tolerance."""

    def searched(beam: int) -> _Search:
        def run(part: Sequence[GoldenSentence]) -> list[list[Hypothesis]]:
            return translate_golden(session, [s.source for s in part], tokens, limits, decoding, beam)

        return _Search(beam, run, lambda sentence: (sentence.greedy,) if beam == 1 else sentence.beam)

    return _check_searches("hypotheses", [searched(beam) for beam in beams], golden, tolerance, on_batch, batch_size)


def check_one_call(
    translate: Callable[[Sequence[tuple[int, ...]], Sequence[int]], Sequence[Scored]],
    golden: Sequence[GoldenSentence],
    limits: Limits,
    decoding: Decoding,
    tolerance: Tolerance,
    batch_size: int = 10,
) -> Rung:
    """A graph that holds the whole search: its best hypothesis is that of the search outside."""

    def run(part: Sequence[GoldenSentence]) -> list[list[Scored]]:
        sources = [s.source for s in part]
        return [[best] for best in translate(sources, [decoding.longest(len(s), limits) for s in sources])]

    whole = _Search(decoding.beam, run, lambda s: (s.greedy,) if decoding.beam == 1 else s.beam[:1])
    return _check_searches("one call", [whole], golden, tolerance, lambda: None, batch_size)


def _check_searches(
    name: RungName,
    searches: Sequence[_Search],
    golden: Sequence[GoldenSentence],
    tolerance: Tolerance,
    on_batch: Callable[[], None],
    batch_size: int,
) -> Rung:
    watch = Shares(name, tolerance.hypotheses)
    worst_score = 0.0
    for first in range(0, len(golden), batch_size):
        part = golden[first : first + batch_size]
        for way in searches:
            try:
                found = way.run(part)
            except (SearchError, SessionError) as error:
                # Logits that are no numbers, a graph that cannot run: a breach, not the end of the climb.
                for index in range(len(part)):
                    watch.count(False, first + index, 0, "search", str(error))
                continue
            for index, (sentence, hypotheses) in enumerate(zip(part, found, strict=True)):
                wanted = way.wanted(sentence)
                off = compare_hypotheses(watch, first + index, way.beam, wanted, hypotheses, tolerance.score)
                worst_score = max(worst_score, off)
        on_batch()
    watch.remarks.append(f"scores of the others within {worst_score:.1e}")
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


def compare_hypotheses(
    watch: Shares,
    sentence: int,
    beam: int,
    wanted: Sequence[GoldenHypothesis],
    found: Sequence[Scored],
    score_tolerance: float,
) -> float:
    """Count equal hypotheses; returns the largest difference of score among those of equal tokens."""
    kind = "greedy" if beam == 1 else f"beam {beam}"
    largest = 0.0
    for rank, expected in enumerate(wanted):
        what = f"{kind} hypothesis {rank}"
        if rank >= len(found):
            watch.count(False, sentence, 0, what, f"sentence {sentence}: {len(found)} hypotheses, not {len(wanted)}")
            continue
        actual = found[rank]
        if expected.tokens != actual.tokens:
            step = first_difference(expected.tokens, actual.tokens)
            watch.count(False, sentence, step, what, f"sentence {sentence}: other tokens")
            continue
        off = abs(expected.score - actual.score)
        largest = max(largest, off)
        detail = f"sentence {sentence}: score off by {off:.3g}"
        watch.count(off <= score_tolerance, sentence, len(expected.tokens) - 1, what, detail)
    return largest


def first_difference(a: Sequence[int], b: Sequence[int]) -> int:
    """Index of the first token that differs, or the shorter length."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
