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
_POOL = 64


@dataclass(frozen=True)
class Batch:
    """Source (B, S) ends in eos; decoder input (B, T) starts with eos; labels (B, T) end in eos. Padded right."""

    source: Int[Tensor, "B S"]
    decoder_input: Int[Tensor, "B T"]
    labels: Int[Tensor, "B T"]

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return Batch(self.source.to(device), self.decoder_input.to(device), self.labels.to(device))


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
    lengths = [c.lengths() for c in corpora]
    source = np.array([lengths[c][0][i] for c, i in rows]) + 1
    target = np.array([lengths[c][1][i] for c, i in rows]) + 1
    pool = max(1, int(_POOL * batch_tokens / target.mean()))
    batches: list[np.ndarray] = []
    for start in range(0, len(rows), pool):
        order = start + np.lexsort((source[start : start + pool], target[start : start + pool]))
        batches.extend(rows[part] for part in _cut(order, source, target, batch_tokens))
    return [batches[i] for i in rng.permutation(len(batches))]


def _cut(order: np.ndarray, source: np.ndarray, target: np.ndarray, limit: int) -> Iterator[np.ndarray]:
    first, longest = 0, 0
    for here, row in enumerate(order):
        longest = max(longest, source[row], target[row])
        if here > first and longest * (here - first + 1) > limit:
            yield order[first:here]
            first, longest = here, max(source[row], target[row])
    yield order[first:]


def collate(rows: np.ndarray, corpora: Sequence[TokenPairs], config: ModelConfig) -> Batch:
    """Token ids of a batch."""
    pairs = [[side.tolist() for side in corpora[c].pair(i)] for c, i in rows.tolist()]
    return Batch(
        source=_pad([[*s, config.eos] for s, _ in pairs], config.pad),
        decoder_input=_pad([[config.eos, *t] for _, t in pairs], config.pad),
        labels=_pad([[*t, config.eos] for _, t in pairs], config.pad),
    )


def _pad(sentences: Sequence[Sequence[int]], pad: int) -> Int[Tensor, "B L"]:
    padded = torch.full((len(sentences), max(map(len, sentences))), pad, dtype=torch.long)
    for row, sentence in enumerate(sentences):
        padded[row, : len(sentence)] = torch.as_tensor(sentence)
    return padded


def epoch_batches(
    corpora: Sequence[TokenPairs], repeats: Sequence[float], epoch: int, seed: int, batch_tokens: int
) -> list[np.ndarray]:
    """All batches of one epoch in order."""
    rows = epoch_indices(corpora, repeats, epoch, seed)
    return bucket(rows, corpora, batch_tokens, np.random.default_rng((seed, epoch, 1)))
