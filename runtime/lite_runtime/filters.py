"""What search may not choose: one small filter a rule, applied to the live hypotheses' next tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

NEVER = np.float32(-np.inf)


@dataclass(frozen=True)
class Beams:
    """The live hypotheses of all unfinished sentences.

    Shapes: N sentences, W hypotheses each (1 before the first token, then the beam), T tokens so far.
    ``tokens`` begin with the start token; a hypothesis with ``totals`` of minus infinity is dead.
    """

    sentences: Int[np.ndarray, " N"]
    limits: Int[np.ndarray, " N"]
    totals: Float[np.ndarray, "N W"]
    token_scores: Float[np.ndarray, "N W T"]
    tokens: Int[np.ndarray, "N W T+1"]

    @property
    def length(self) -> int:
        """Target tokens so far, the start token not counted."""
        return self.tokens.shape[2] - 1


@runtime_checkable
class Filter(Protocol):
    """Forbids tokens by setting their log-probability to minus infinity, in place."""

    def apply(self, scores: Float[np.ndarray, "N W V"], beams: Beams) -> None: ...


@dataclass(frozen=True)
class NeverPad:
    """Padding is no output."""

    pad: int

    def apply(self, scores: Float[np.ndarray, "N W V"], beams: Beams) -> None:
        scores[..., self.pad] = NEVER


@dataclass(frozen=True)
class MinLength:
    """No eos before ``tokens`` tokens, unless the sentence's own limit is lower."""

    tokens: int
    eos: int

    def apply(self, scores: Float[np.ndarray, "N W V"], beams: Beams) -> None:
        scores[beams.length < np.minimum(self.tokens, beams.limits), :, self.eos] = NEVER


@dataclass(frozen=True)
class NoRepeatNgram:
    """No n-gram twice, the start token counting as a token; forced tokens are exempt, and so is eos.

    Exempting eos differs from fairseq for n = 1 only, where it could never end a sentence: it starts with eos.
    """

    size: int
    forced: int
    eos: int

    def apply(self, scores: Float[np.ndarray, "N W V"], beams: Beams) -> None:
        if beams.length < self.forced or beams.length + 1 < self.size:
            return
        windows = np.lib.stride_tricks.sliding_window_view(beams.tokens, self.size, axis=2)
        recent = beams.tokens[:, :, beams.length + 2 - self.size :]
        seen = (windows[..., :-1] == recent[:, :, None, :]).all(-1) & (windows[..., -1] != self.eos)
        row, beam, place = np.nonzero(seen)
        scores[row, beam, windows[row, beam, place, -1]] = NEVER


@dataclass(frozen=True)
class ForcedPrefix:
    """Nothing but the prefix's token while there is one."""

    prefix: tuple[int, ...]

    def apply(self, scores: Float[np.ndarray, "N W V"], beams: Beams) -> None:
        if beams.length < len(self.prefix):
            _only(scores, self.prefix[beams.length])


@dataclass(frozen=True)
class MaxLength:
    """Nothing but eos at the sentence's limit."""

    eos: int

    def apply(self, scores: Float[np.ndarray, "N W V"], beams: Beams) -> None:
        full = beams.length >= beams.limits
        if full.any():
            ending = scores[full]
            _only(ending, self.eos)
            scores[full] = ending


def _only(scores: Float[np.ndarray, "N W V"], token: int) -> None:
    allowed = scores[..., token].copy()
    scores[...] = NEVER
    scores[..., token] = allowed
