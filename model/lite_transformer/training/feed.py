"""The updates of a run, in order: collated by a thread, so that the device never waits for Python."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from lite_transformer.config import ModelConfig
from lite_transformer.training.batches import Batch, collate, epoch_batches, tokens_of
from lite_transformer.training.corpus import CorpusError
from lite_transformer.training.prepare import TokenPairs
from lite_transformer.training.recipe import Recipe

T = TypeVar("T")
_AHEAD = 4


@dataclass(frozen=True)
class Update:
    """What one process does in one update.

    ``number`` counts the updates of this ``epoch`` from 0. Source and target tokens, padding apart, are those of all
    processes together.
    """

    epoch: int
    number: int
    batches: tuple[Batch, ...]
    source_tokens: int
    target_tokens: int


@dataclass(frozen=True)
class Feed:
    """One process's share of a recipe's batches: of every ``processes`` the one of its ``rank``."""

    recipe: Recipe
    config: ModelConfig
    corpora: Sequence[TokenPairs]
    processes: int
    rank: int
    pinned: bool

    def updates(self, epoch: int, number: int) -> Generator[Update, None, None]:
        """Updates without end, from the one of this epoch and number.

        Raises:
            CorpusError: an epoch is too small for a single update.
        """
        return _made_ahead(self._updates(epoch, number))

    def _updates(self, epoch: int, number: int) -> Iterator[Update]:
        taken = self.processes * self.recipe.accumulate
        while True:
            batches = self._epoch(epoch)
            if len(batches) < taken:
                raise CorpusError(
                    f"an epoch has {len(batches)} batches for {self.processes} processes"
                    f" x accumulate {self.recipe.accumulate}: lower batch_tokens"
                )
            for start in range(number * taken, len(batches) - taken + 1, taken):
                yield self._update(epoch, start // taken, batches[start : start + taken])
            epoch, number = epoch + 1, 0

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        repeats = [corpus.repeat for corpus in self.recipe.train]
        tokens = self.recipe.batch_tokens // self.processes
        return epoch_batches(self.corpora, repeats, epoch, self.recipe.seed, tokens, self.recipe.buckets)

    def _update(self, epoch: int, number: int, all_rows: Sequence[np.ndarray]) -> Update:
        batches = (
            collate(rows, self.corpora, self.config, self.recipe.buckets)
            for rows in all_rows[self.rank :: self.processes]
        )
        sources, targets = zip(*(tokens_of(rows, self.corpora) for rows in all_rows), strict=True)
        own = tuple(batch.pinned() if self.pinned else batch for batch in batches)
        return Update(epoch, number, own, sum(sources), sum(targets))


def _made_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items, and errors, made by one thread a few ahead of their reader."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="feed")
    try:
        waiting = deque(pool.submit(next, items) for _ in range(_AHEAD))
        while True:
            item = waiting.popleft().result()
            waiting.append(pool.submit(next, items))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
