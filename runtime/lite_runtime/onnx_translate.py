"""The graphs that need one call: ``translate.onnx`` from ids to ids, ``translate_text.onnx`` from text to text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lite_runtime.manifest import Limits, TokenIds
from lite_runtime.onnx_graph import load_graph, run_graph
from lite_runtime.search import SearchError, pad_sources


@dataclass(frozen=True)
class Best:
    """A sentence's best hypothesis: its tokens, eos included, and its normalised score."""

    tokens: tuple[int, ...]
    score: float


class OneGraph:
    """Runs ``translate.onnx``; its beam and length penalty were fixed at export.

    Args:
        path: the file, or the ``.ort`` file made from it.
        tokens: the model's special ids.
        limits: the most tokens it accepts.
        threads: of one operator; None leaves it to ONNX Runtime.

    Raises:
        BundleError: ONNX Runtime is not installed, or refuses the file.
    """

    def __init__(self, path: Path, tokens: TokenIds, limits: Limits, threads: int | None = None) -> None:
        self.tokens, self.limits = tokens, limits
        self._session = load_graph(path, threads)

    def translate(self, sources: Sequence[tuple[int, ...]], max_lengths: Sequence[int]) -> list[Best]:
        """Translate a batch of sentences.

        Args:
            sources: token ids of each sentence, eos included.
            max_lengths: the most tokens before eos, sentence by sentence.

        Raises:
            SearchError: an empty or too long source, lengths that do not fit, or a model that returns numbers
                that are not finite.
            SessionError: ONNX Runtime failed.
        """
        if not sources:
            return []
        self._check(sources, max_lengths)
        source, mask = pad_sources(sources, self.tokens.pad)
        feeds = {"source": source, "mask": mask, "max_length": np.asarray(max_lengths, np.int64)}
        found, scores = run_graph(self._session, ["tokens", "scores"], feeds)
        if not np.isfinite(scores).all():
            raise SearchError("the model returned numbers that are not finite: is it damaged?")
        rows = zip(found.tolist(), scores.tolist(), strict=True)
        return [Best(self._whole(row), score) for row, score in rows]

    def _whole(self, row: list[int]) -> tuple[int, ...]:
        if self.tokens.eos not in row:
            raise SearchError(f"an output does not end in {self.tokens.eos}: the graph has another end of sentence")
        return tuple(row[: row.index(self.tokens.eos) + 1])

    def _check(self, sources: Sequence[tuple[int, ...]], max_lengths: Sequence[int]) -> None:
        if len(max_lengths) != len(sources):
            raise SearchError(f"{len(max_lengths)} max_lengths for {len(sources)} sentences")
        if min(max_lengths) < 1:
            raise SearchError(f"max_lengths holds {min(max_lengths)}: use 1 or more")
        if (longest := max(map(len, sources))) > self.limits.max_source:
            raise SearchError(f"a source has {longest} tokens, the model takes {self.limits.max_source}: split it")


class OneTextGraph:
    """Runs ``translate_text.onnx``: a sentence in, its translation out.

    Raises:
        BundleError: ONNX Runtime or onnxruntime-extensions is not installed, or the file is refused.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._session = load_graph(path, threads, text=True)

    def translate(self, sentence: str) -> tuple[str, float]:
        """One sentence's translation and its score.

        Raises:
            SearchError: a model that returns numbers that are not finite.
            SessionError: ONNX Runtime failed: a sentence longer than the model takes, say.
        """
        feeds = {"text": np.array([sentence], dtype=object)}
        (translation,), (score,) = run_graph(self._session, ["translation", "score"], feeds)
        if not math.isfinite(score):
            raise SearchError("the model returned numbers that are not finite: is it damaged?")
        return str(translation), float(score)
