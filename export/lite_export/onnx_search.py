"""Beam search as ONNX nodes: what ``lite_runtime.search`` does to one target position, for a ``Loop`` body.

Pipeline, per position: 1. logits become log-probabilities; 2. filters forbid tokens; 3. the best ``2 * beam``
continuations of each sentence are chosen; 4. the first of those that end within the top ``beam`` replaces the
best finished hypothesis if it scores higher; 5. the best ``beam`` that go on become the next hypotheses.

The result is the best hypothesis of ``lite_runtime.search``, by construction:

- Hypotheses that end at one position have one length, so the first in rank is the best of them, and it is never
  the one that search turns away for having ``beam`` already. A later one must score strictly higher, as search
  sorts stably.
- Search takes a finished sentence out of its batch; here ``done`` keeps its result from changing.
- Each hypothesis can end once, so at most ``beam`` of ``2 * beam`` candidates end and ``beam`` of them go on.
- Search stops early where nothing goes on; here dead hypotheses go on and can never end.
- Search starts with one hypothesis, this with ``beam`` alike, of which all but the first are dead (minus infinity).

Shapes: N sentences, K hypotheses each, R = N * K rows, V target vocabulary, T tokens so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from lite_export.onnx_ops import Ops
from lite_runtime.manifest import Decoding, Limits, TokenIds

_NEVER = float("-inf")
_END = np.iinfo(np.int64).max
# Rows of the filter table.
_USUAL, _FIRST, _FULL = 0, 1, 2


@dataclass(frozen=True)
class Rules:
    """What a search obeys; ``beam`` of 1 is greedy search."""

    tokens: TokenIds
    limits: Limits
    decoding: Decoding
    vocabulary: int
    beam: int


class Hypotheses(NamedTuple):
    """What the loop carries: the live hypotheses, and of each sentence the best finished one.

    history (R, T+1) int64 and best (N, T+1) int64 begin with the start token; totals (N, K); score (N);
    found (N) int64, the hypotheses finished; done (N) bool.
    """

    history: ir.Value
    totals: ir.Value
    best: ir.Value
    score: ir.Value
    found: ir.Value
    done: ir.Value


class Frame(NamedTuple):
    """What stays as it is from position to position.

    most (N) int64, the tokens before eos; first_row (N, 1) int64, each sentence's; filters (3, V).
    """

    most: ir.Value
    first_row: ir.Value
    filters: ir.Value


def frame(ops: Ops, rules: Rules, sentences: ir.Value, max_length: ir.Value) -> Frame:
    """Nodes that run once.

    Args:
        sentences: (1) int64, how many there are.
        max_length: (1) or (N) int64, the most tokens before eos, brought to what the position table holds.
    """
    most = ops("Min", ops("Max", max_length, [1]), [rules.limits.max_target - 1])
    numbers = ops("Range", 0, ops("Squeeze", sentences), 1)
    return Frame(
        most=ops("Expand", most, sentences),
        first_row=ops("Unsqueeze", ops("Mul", numbers, rules.beam), [1]),
        filters=_filters(ops, rules),
    )


def _filters(ops: Ops, rules: Rules) -> ir.Value:
    """What is added to a position's log-probabilities: never padding; no eos at first, and nothing else at last."""
    ids = ops("Range", 0, rules.vocabulary, 1)
    pad, eos = ops("Equal", ids, rules.tokens.pad), ops("Equal", ids, rules.tokens.eos)
    usual = ops("Where", pad, _NEVER, 0.0)
    first = ops("Where", eos, _NEVER, usual)
    full = ops("Where", eos, 0.0, _NEVER)
    return ops("Concat", *(ops("Unsqueeze", rule, [0]) for rule in (usual, first, full)), axis=0)


def start(ops: Ops, rules: Rules, sentences: ir.Value) -> Hypotheses:
    """The hypotheses before the first token."""
    only_first = np.full((1, rules.beam), _NEVER, np.float32)
    only_first[0, 0] = 0
    begin = np.array([[rules.tokens.start]])
    by_sentence = ops("Concat", sentences, [1], axis=0)
    by_row = ops("Concat", ops("Mul", sentences, [rules.beam]), [1], axis=0)
    return Hypotheses(
        history=ops("Expand", begin, by_row),
        totals=ops("Expand", only_first, by_sentence),
        best=ops("Expand", begin, by_sentence),
        score=ops("Expand", np.array([_NEVER], np.float32), sentences),
        found=ops("Expand", [0], sentences),
        done=ops("Expand", np.array([False]), sentences),
    )


def next_tokens(ops: Ops, now: Hypotheses) -> ir.Value:
    """What the step graph reads: the last token of each row, (R) int64."""
    return ops("Gather", now.history, -1, axis=1)


def advance(
    ops: Ops, rules: Rules, fixed: Frame, now: Hypotheses, position: ir.Value, logits: ir.Value
) -> tuple[Hypotheses, ir.Value]:
    """One position: the hypotheses after it, and the state row each live one continues, (R) int64.

    Args:
        position: () int64, the tokens so far.
        logits: (R, V).
    """
    beam, eos = rules.beam, rules.tokens.eos
    scores = _allowed(ops, rules, fixed, now, position, logits)
    sums = ops("Add", ops("Unsqueeze", now.totals, [2]), scores)
    totals, places = ops.several("TopK", 2, ops("Reshape", sums, [0, beam * rules.vocabulary]), [2 * beam])
    origins = ops("Div", places, rules.vocabulary)
    tokens = ops("Mod", places, rules.vocabulary)
    rows = ops("Add", origins, fixed.first_row)
    is_eos = ops("Equal", tokens, eos)

    ends = _head(ops, ops("And", is_eos, ops("Greater", totals, _NEVER)), beam)
    best, score = _best(ops, rules, now, position, ends, _head(ops, totals, beam), rows)
    found = ops("Add", now.found, _count(ops, ends))
    over = ops("Or", ops("GreaterOrEqual", found, beam), ops("GreaterOrEqual", position, fixed.most))
    done = ops("Or", now.done, over)

    # Ranks of those that go on, best first: those that end are sent behind all others.
    ranks = ops("Add", ops("Mul", ops("Cast", is_eos, to=ir.DataType.INT64), 2 * beam), np.arange(2 * beam)[None])
    _, chosen = ops.several("TopK", 2, ranks, [beam], largest=0)
    kept = ops("Reshape", ops("GatherElements", rows, chosen, axis=1), [-1])
    added = ops("Reshape", ops("GatherElements", tokens, chosen, axis=1), [-1, 1])
    history = ops("Concat", ops("Gather", now.history, kept), added, axis=1)
    return Hypotheses(history, ops("GatherElements", totals, chosen, axis=1), best, score, found, done), kept


def _allowed(ops: Ops, rules: Rules, fixed: Frame, now: Hypotheses, position: ir.Value, logits: ir.Value) -> ir.Value:
    """Log-probabilities, (N, K, V), minus infinity where a token is forbidden."""
    scores = ops("LogSoftmax", logits)
    if rules.decoding.no_repeat_ngram:
        scores = _no_repeat(ops, rules, now.history, scores)
    at_first = ops("Where", ops("Equal", position, 0), _FIRST, _USUAL)
    rule = ops("Where", ops("GreaterOrEqual", position, fixed.most), _FULL, at_first)
    forbidden = ops("Unsqueeze", ops("Gather", fixed.filters, rule), [1])
    return ops("Add", ops("Reshape", scores, [-1, rules.beam, rules.vocabulary]), forbidden)


def _no_repeat(ops: Ops, rules: Rules, history: ir.Value, scores: ir.Value) -> ir.Value:
    """Forbid the last token of each n-gram of the history whose first n - 1 tokens are its latest; eos is exempt."""
    size = rules.decoding.no_repeat_ngram
    last = ops("Slice", history, [size - 1], [_END], [1])
    seen = ops("Not", ops("Equal", last, rules.tokens.eos))
    for place in range(size - 1):
        back = place - size + 1
        earlier = ops("Slice", history, [place], [back], [1])
        latest = ops("Slice", history, [back], [back + 1 or _END], [1])
        seen = ops("And", seen, ops("Equal", earlier, latest))
    forbidden = ops("Where", seen, _NEVER, 0.0)
    return ops("ScatterElements", scores, last, forbidden, axis=1, reduction="add")


def _best(
    ops: Ops, rules: Rules, now: Hypotheses, position: ir.Value, ends: ir.Value, totals: ir.Value, rows: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """The best finished hypotheses and their scores after this position; ``ends`` and ``totals`` are (N, K)."""
    tokens = ops("Cast", ops("Add", position, 1), to=ir.DataType.FLOAT)
    scores = ops("Div", totals, ops("Pow", tokens, float(rules.decoding.length_penalty)))
    rank = ops("ArgMax", ops("Cast", ends, to=ir.DataType.INT32), axis=1)
    score = ops("ReduceMax", ops("Where", ends, scores, _NEVER), [1], keepdims=0)
    better = ops("And", ops("Greater", score, now.score), ops("Not", now.done))
    row = ops("Squeeze", ops("GatherElements", rows, rank, axis=1), [1])
    ended = _with_column(ops, ops("Gather", now.history, row), rules.tokens.eos)
    kept = _with_column(ops, now.best, rules.tokens.pad)
    return ops("Where", ops("Unsqueeze", better, [1]), ended, kept), ops("Where", better, score, now.score)


def finish(ops: Ops, rules: Rules, end: Hypotheses) -> ir.Value:
    """The best hypotheses' tokens, (N, T), eos included and padded, without start and common padding."""
    tokens = ops("Slice", end.best, [1], [_END], [1])
    lengths = _count(ops, ops("Not", ops("Equal", tokens, rules.tokens.pad)))
    return ops("Slice", tokens, [0], ops("ReduceMax", lengths, [0]), [1])


def _head(ops: Ops, ranked: ir.Value, beam: int) -> ir.Value:
    return ops("Slice", ranked, [0], [beam], [1])


def _count(ops: Ops, flags: ir.Value) -> ir.Value:
    """How many are True in each row."""
    return ops("ReduceSum", ops("Cast", flags, to=ir.DataType.INT64), [1], keepdims=0)


def _with_column(ops: Ops, tokens: ir.Value, token: int) -> ir.Value:
    return ops("Pad", tokens, [0, 0, 0, 1], token)
