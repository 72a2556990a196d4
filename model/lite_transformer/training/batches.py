"""Length-bucketed batches, a pure function of (recipe, epoch): a resumed run sees the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from lite_transformer.config import ModelConfig
from lite_transformer.training.prepare import TokenPairs

# Batches sorted together: large enough for tight buckets, small enough to keep neighbours mixed.
_POOL = 128


@dataclass(frozen=True)
class Batch:
    """Source (B, S) ends in eos; decoder input (B, T) starts with eos; labels (B, T) end in eos. Padded right."""

    source: Int[Tensor, "B S"]
    decoder_input: Int[Tensor, "B T"]
    labels: Int[Tensor, "B T"]

    def to(self, device: torch.device) -> Batch:
        """The batch on another device; from pinned memory, without waiting for the copy."""
        return Batch(*(side.to(device, non_blocking=True) for side in self._sides()))

    def pinned(self) -> Batch:
        """The batch in memory that a GPU can copy from by itself."""
        return Batch(*(side.pin_memory() for side in self._sides()))

    def _sides(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.source, self.decoder_input, self.labels


def epoch_indices(corpora: Sequence[TokenPairs], repeats: Sequence[float], epoch: int, seed: int) -> np.ndarray:
    """(corpus, sentence) rows of one epoch, shuffled, shape (N, 2)."""
    rng = np.random.default_rng((seed, epoch))
    rows = []
    for number, (corpus, repeat) in enumerate(zip(corpora, repeats, strict=True)):
        whole, part = int(repeat), repeat % 1
        chosen = [np.arange(len(corpus))] * whole
        chosen.append(rng.choice(len(corpus), size=round(part * len(corpus)), replace=False))
        sentences = np.concatenate(chosen)
        rows.append(np.stack([np.full_like(sentences, number), sentences], axis=1))
    return rng.permutation(np.concatenate(rows))


def bucket(
    rows: np.ndarray, corpora: Sequence[TokenPairs], batch_tokens: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Group rows of like length into batches of at most ``batch_tokens`` padded tokens on either side."""
    if not len(rows):
        return []
    source, target = _lengths(rows, corpora)
    pool = max(1, int(_POOL * batch_tokens / target.mean()))
    batches: list[np.ndarray] = []
    for start in range(0, len(rows), pool):
        order = start + _by_shape(source[start : start + pool], target[start : start + pool])
        batches.extend(rows[part] for part in _cut(order, source, target, batch_tokens))
    return [batches[i] for i in rng.permutation(len(batches))]


def _by_shape(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """An order in which neighbours are alike on both sides: by the longer one, then, to and fro, by the difference."""
    longest = np.maximum(source, target)
    return np.lexsort((np.where(longest % 2, source - target, target - source), longest))


def _cut(order: np.ndarray, source: np.ndarray, target: np.ndarray, limit: int) -> Iterator[np.ndarray]:
    first, longest = 0, 0
    for here, row in enumerate(order):
        longest = max(longest, source[row], target[row])
        if here > first and longest * (here - first + 1) > limit:
            yield order[first:here]
            first, longest = here, max(source[row], target[row])
    yield order[first:]


def pack(
    rows: np.ndarray,
    corpora: Sequence[TokenPairs],
    batch_tokens: int,
    buckets: Sequence[int],
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Group rows into batches of few shapes, for compiled models and GPUs.

    A pair belongs to the shortest bucket that holds both its sides; each bucket's batches have ``batch_tokens``
    divided by its length rows, but for the last one of the epoch.
    """
    longest = np.maximum(*_lengths(rows, corpora))
    own = np.searchsorted(buckets, longest)
    batches: list[np.ndarray] = []
    for number, length in enumerate(buckets):
        inside, size = rows[own == number], max(1, batch_tokens // length)
        batches.extend(inside[start : start + size] for start in range(0, len(inside), size))
    return [batches[i] for i in rng.permutation(len(batches))]


def _lengths(rows: np.ndarray, corpora: Sequence[TokenPairs]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each row's source and target, eos included."""
    both = np.empty((2, len(rows)), np.int64)
    for number, corpus in enumerate(corpora):
        here = rows[:, 0] == number
        both[:, here] = np.stack(corpus.lengths())[:, rows[here, 1]]
    return both[0] + 1, both[1] + 1


def tokens_of(rows: np.ndarray, corpora: Sequence[TokenPairs]) -> tuple[int, int]:
    """Source and target tokens of a batch, eos included, padding not."""
    source, target = _lengths(rows, corpora)
    return int(source.sum()), int(target.sum())


def collate(rows: np.ndarray, corpora: Sequence[TokenPairs], config: ModelConfig, buckets: Sequence[int] = ()) -> Batch:
    """Token ids of a batch, as long as its longest sentence or, where there are buckets, as its bucket."""
    sources, targets = zip(*(corpora[c].pair(i) for c, i in rows.tolist()), strict=True)
    length = _bucket_of(sources, targets, buckets) if buckets else None
    return Batch(
        source=_padded(sources, config.pad, length, last=config.eos),
        decoder_input=_padded(targets, config.pad, length, first=config.eos),
        labels=_padded(targets, config.pad, length, last=config.eos),
    )


def _bucket_of(sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], buckets: Sequence[int]) -> int:
    longest = max(map(len, (*sources, *targets))) + 1
    return next(length for length in buckets if length >= longest)


def _padded(
    sentences: Sequence[np.ndarray], pad: int, length: int | None, first: int | None = None, last: int | None = None
) -> Int[Tensor, "B L"]:
    """Sentences with one token more, ``first`` or ``last``, padded on the right."""
    lengths = np.array([len(sentence) for sentence in sentences])
    padded = np.full((len(sentences), length or lengths.max() + 1), pad, np.int64)
    places, start = np.arange(padded.shape[1]), int(first is not None)
    padded[(places >= start) & (places < lengths[:, None] + start)] = np.concatenate(sentences)
    padded[np.arange(len(padded)), 0 if first is not None else lengths] = first if first is not None else last
    return torch.from_numpy(padded)


def epoch_batches(
    corpora: Sequence[TokenPairs],
    repeats: Sequence[float],
    epoch: int,
    seed: int,
    batch_tokens: int,
    buckets: Sequence[int] = (),
) -> list[np.ndarray]:
    """All batches of one epoch in order: sorted by length, or packed into ``buckets`` where they are given."""
    rows = epoch_indices(corpora, repeats, epoch, seed)
    rng = np.random.default_rng((seed, epoch, 1))
    return pack(rows, corpora, batch_tokens, buckets, rng) if buckets else bucket(rows, corpora, batch_tokens, rng)
