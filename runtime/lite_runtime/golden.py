"""Golden sentences of a bundle: what PyTorch translated at export, token for token."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from lite_runtime.manifest import Part
from lite_runtime.search import Hypothesis

GOLDEN_BEAM = 4


class GoldenHypothesis(Part):
    """One translation as token ids (end-of-sentence included) with its normalised score."""

    tokens: tuple[int, ...]
    score: float

    @classmethod
    def of(cls, hypothesis: Hypothesis) -> GoldenHypothesis:
        """The recorded form of a search result."""
        return cls(tokens=hypothesis.tokens, score=round(hypothesis.score, 6))


class GoldenSentence(Part):
    """A sentence, its tokens, and its translations by greedy search and beam ``GOLDEN_BEAM`` (best first)."""

    text: str
    source: tuple[int, ...]
    greedy: GoldenHypothesis
    beam: tuple[GoldenHypothesis, ...]


_LIST = TypeAdapter(tuple[GoldenSentence, ...])


def load_golden(path: Path) -> tuple[GoldenSentence, ...]:
    """Golden sentences of a file."""
    return _LIST.validate_json(path.read_bytes())


def dump_golden(sentences: tuple[GoldenSentence, ...]) -> bytes:
    """The file's content."""
    return _LIST.dump_json(sentences, indent=1)
