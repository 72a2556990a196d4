"""Greedy and beam search over any Session, written once.

Pipeline, per target position: 1. the session's logits become log-probabilities; 2. filters forbid tokens;
3. the best ``2 * beam`` continuations of each sentence are chosen; 4. those that end a sentence within the
top ``beam`` are finished; 5. sentences that are done leave the batch, and the session reorders its state.

The semantics are those of fairseq 0.8's SequenceGenerator, so its scores are reproduced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from lite_runtime.filters import NEVER, Beams, Filter, ForcedPrefix, MaxLength, MinLength, NeverPad, NoRepeatNgram
from lite_runtime.manifest import TokenIds
from lite_runtime.session import Session, State


class SearchError(ValueError):
    """A search cannot run as asked; the message says which option or input to change."""


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    ``min_length`` and ``max_length`` count target tokens before eos. A hypothesis scores its summed
    log-probability over (tokens with eos) ** ``length_penalty``, or the bare sum without ``normalize``.
    ``prefix`` is forced at the start of every output, with the scores the model gives it.
    ``no_repeat_ngram`` forbids any n-gram of that size to occur twice; 0 for no such rule.
    """

    beam: int = 4
    length_penalty: float = 1.0
    min_length: int = 1
    max_length: int = 200
    nbest: int = 1
    no_repeat_ngram: int = 0
    prefix: tuple[int, ...] = ()
    normalize: bool = True

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise SearchError(f"beam is {self.beam}: use 1 (greedy) or more")
        if not 1 <= self.nbest <= self.beam:
            raise SearchError(f"nbest is {self.nbest}: a beam of {self.beam} gives 1 to {self.beam} hypotheses")
        if not 0 <= self.min_length <= self.max_length:
            raise SearchError(f"lengths {self.min_length} to {self.max_length}: need 0 <= min_length <= max_length")
        if self.max_length < 1:
            raise SearchError(f"max_length is {self.max_length}: use 1 or more")
        if self.no_repeat_ngram < 0:
            raise SearchError(f"no_repeat_ngram is {self.no_repeat_ngram}: use 0 (off) or more")
        if not math.isfinite(self.length_penalty):
            raise SearchError(f"length_penalty is {self.length_penalty}: use a finite number")
        if len(self.prefix) > self.max_length:
            raise SearchError(f"the prefix has {len(self.prefix)} tokens, more than max_length {self.max_length}")


@dataclass(frozen=True)
class Hypothesis:
    """One finished output: its tokens, eos included, and the log-probability of each."""

    tokens: tuple[int, ...]
    score: float
    token_scores: tuple[float, ...]


@dataclass(frozen=True)
class Candidates:
    """The best continuations of each sentence, best first: K of them, each a hypothesis and its next token."""

    beams: Int[np.ndarray, "N K"]
    tokens: Int[np.ndarray, "N K"]
    scores: Float[np.ndarray, "N K"]
    totals: Float[np.ndarray, "N K"]


class Finisher:
    """Collects finished hypotheses and knows when a sentence has enough of them."""

    def __init__(self, sentences: int, eos: int, options: SearchOptions) -> None:
        self.eos = eos
        self.options = options
        self.finished: list[list[Hypothesis]] = [[] for _ in range(sentences)]

    def update(self, beams: Beams, best: Candidates) -> Bool[np.ndarray, " N"]:
        """Finish candidates that are eos within the top ``beam``; True where a sentence is done."""
        alive = np.isfinite(best.totals)
        ends = (best.tokens == self.eos) & alive
        ends[:, self.options.beam :] = False
        for row, rank in np.argwhere(ends).tolist():
            found = self.finished[beams.sentences[row]]
            if len(found) < self.options.beam:
                found.append(self._hypothesis(beams, best, row, rank))
        enough = np.array([len(self.finished[s]) >= self.options.beam for s in beams.sentences])
        stuck = ~(alive & (best.tokens != self.eos)).any(axis=1)
        return enough | stuck | (beams.length >= beams.limits)

    def results(self) -> list[list[Hypothesis]]:
        """The n best of each sentence, best first."""
        return [sorted(found, key=lambda h: -h.score)[: self.options.nbest] for found in self.finished]

    def _hypothesis(self, beams: Beams, best: Candidates, row: int, rank: int) -> Hypothesis:
        beam = best.beams[row, rank]
        tokens = (*beams.tokens[row, beam, 1:].tolist(), self.eos)
        score = float(best.totals[row, rank])
        if self.options.normalize:
            score /= len(tokens) ** self.options.length_penalty
        history = beams.token_scores[row, beam].tolist()
        return Hypothesis(tokens, score, (*history, float(best.scores[row, rank])))


def search(
    session: Session,
    sources: Sequence[tuple[int, ...]],
    tokens: TokenIds,
    options: SearchOptions | None = None,
    *,
    max_lengths: Sequence[int] | None = None,
    pad_left: bool = False,
) -> list[list[Hypothesis]]:
    """Translate a batch of sentences.

    Args:
        sources: token ids of each sentence, eos included.
        tokens: the model's special ids.
        options: SearchOptions() when None; its ``beam`` of 1 is greedy search.
        max_lengths: the most tokens before eos, sentence by sentence; ``options.max_length`` caps them.
        pad_left: pad short sources on the left, as fairseq does. It matters to models with legacy padding only.

    Returns:
        for each sentence its ``nbest`` hypotheses (fewer where fewer exist, never none), best first.

    Raises:
        SearchError: an empty source, lengths that do not fit, a prefix with special or unheard-of tokens,
            or a model that returns numbers that are not finite.
    """
    options = options or SearchOptions()
    if not sources:
        return []
    if forbidden := {tokens.pad, tokens.eos}.intersection(options.prefix):
        raise SearchError(f"the prefix contains the special token {min(forbidden)}: leave out eos and padding")
    beams = _start(_limits(len(sources), options, max_lengths), tokens.start)
    filters = _filters(options, tokens)
    finisher = Finisher(len(sources), tokens.eos, options)
    state = session.encode(*pad_sources(sources, tokens.pad, left=pad_left))
    while True:
        logits, state = session.step(beams.tokens[:, :, -1].ravel(), beams.length, state)
        scores = _log_softmax(logits, beams.length).reshape(*beams.totals.shape, -1)
        _check_prefix(options.prefix, logits.shape[-1])
        _forbid(scores, beams, filters, tokens.eos)
        best = _best(scores, beams, 2 * options.beam)
        done = finisher.update(beams, best)
        if done.all():
            return finisher.results()
        beams, rows = _advance(beams, best, ~done, options.beam, tokens.eos)
        state = _reordered(session, state, rows, len(logits))


def pad_sources(
    sources: Sequence[tuple[int, ...]], pad: int, *, left: bool = False
) -> tuple[Int[np.ndarray, "B S"], Bool[np.ndarray, "B S"]]:
    """One array of all sources, and the mask that is True at real tokens.

    Raises:
        SearchError: a source has no token.
    """
    lengths = np.array([len(source) for source in sources])
    if not lengths.all():
        raise SearchError(f"source {int(np.argmin(lengths))} is empty: a sentence has at least its eos")
    places = np.arange(lengths.max())
    mask = places < lengths[:, None]
    if left:
        mask = mask[:, ::-1].copy()
    padded = np.full(mask.shape, pad, np.int64)
    padded[mask] = np.concatenate([np.asarray(source, np.int64) for source in sources])
    return padded, mask


def _limits(sentences: int, options: SearchOptions, given: Sequence[int] | None) -> Int[np.ndarray, " N"]:
    if given is None:
        return np.full(sentences, options.max_length)
    if len(given) != sentences:
        raise SearchError(f"{len(given)} max_lengths for {sentences} sentences")
    if min(given) < max(1, len(options.prefix)):
        raise SearchError(f"max_lengths holds {min(given)}: use 1 or more, and no less than the prefix")
    return np.minimum(np.asarray(given, dtype=np.int64), options.max_length)


def _start(limits: Int[np.ndarray, " N"], start: int) -> Beams:
    # One hypothesis each: all would be alike before the first token.
    shape = (len(limits), 1)
    return Beams(
        sentences=np.arange(len(limits)),
        limits=limits,
        totals=np.zeros(shape, np.float32),
        token_scores=np.zeros((*shape, 0), np.float32),
        tokens=np.full((*shape, 1), start, np.int64),
    )


def _filters(options: SearchOptions, tokens: TokenIds) -> list[Filter]:
    filters: list[Filter] = [NeverPad(tokens.pad), MinLength(options.min_length, tokens.eos)]
    if options.no_repeat_ngram:
        filters.append(NoRepeatNgram(options.no_repeat_ngram, len(options.prefix), tokens.eos))
    return [*filters, ForcedPrefix(options.prefix), MaxLength(tokens.eos)]


def _log_softmax(logits: Float[np.ndarray, "B V"], position: int) -> Float[np.ndarray, "B V"]:
    if not np.isfinite(logits).all():
        raise SearchError(f"the model returned logits that are not finite at position {position}: is it damaged?")
    shifted = logits.astype(np.float32) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _check_prefix(prefix: tuple[int, ...], vocabulary: int) -> None:
    for token in prefix:
        if not 0 <= token < vocabulary:
            raise SearchError(f"prefix token {token} is outside the vocabulary of {vocabulary} tokens")


def _forbid(scores: Float[np.ndarray, "N W V"], beams: Beams, filters: list[Filter], eos: int) -> None:
    ending = scores[..., eos].copy()
    for rule in filters:
        rule.apply(scores, beams)
    # A hypothesis left without any continuation may end.
    stuck = ~np.isfinite(scores.max(axis=-1))
    scores[stuck, eos] = ending[stuck]


def _best(scores: Float[np.ndarray, "N W V"], beams: Beams, most: int) -> Candidates:
    sentences, _, vocabulary = scores.shape
    totals = (beams.totals[..., None] + scores).reshape(sentences, -1)
    kept = min(most, totals.shape[1])
    places = np.argpartition(totals, -kept, axis=1)[:, -kept:]
    order = np.argsort(-np.take_along_axis(totals, places, axis=1), axis=1, kind="stable")
    places = np.take_along_axis(places, order, axis=1)
    return Candidates(
        beams=places // vocabulary,
        tokens=places % vocabulary,
        scores=np.take_along_axis(scores.reshape(sentences, -1), places, axis=1),
        totals=np.take_along_axis(totals, places, axis=1),
    )


def _advance(
    beams: Beams, best: Candidates, keep: Bool[np.ndarray, " N"], beam: int, eos: int
) -> tuple[Beams, Int[np.ndarray, " rows"]]:
    """The hypotheses that go on, in the sentences to keep, and the state row each continues."""
    ended = best.tokens == eos
    chosen = np.argsort(ended, axis=1, kind="stable")[keep, :beam]
    row = np.nonzero(keep)[0][:, None]
    origin = best.beams[row, chosen]
    # Where too few go on, an ended one fills the place; it must never be continued.
    totals = np.where(ended[row, chosen], NEVER, best.totals[row, chosen])
    following = Beams(
        sentences=beams.sentences[keep],
        limits=beams.limits[keep],
        tokens=np.concatenate([beams.tokens[row, origin], best.tokens[row, chosen][..., None]], axis=2),
        totals=totals,
        token_scores=np.concatenate([beams.token_scores[row, origin], best.scores[row, chosen][..., None]], axis=2),
    )
    return following, (row * beams.totals.shape[1] + origin).ravel()


def _reordered(session: Session, state: State, rows: Int[np.ndarray, " rows"], before: int) -> State:
    """The session's state for ``rows``, without asking for a copy where they are all rows in order."""
    if len(rows) == before and (rows == np.arange(before)).all():
        return state
    return session.reorder(state, rows)
