"""From blocks to figures: what each candidate takes, how it compares, and what must be said about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import get_args

import numpy as np
from jaxtyping import Float

from lite_runtime.bench_result import (
    BenchError,
    BenchResult,
    Block,
    Candidate,
    Metric,
    Protocol,
    Ratio,
    Summary,
    blocks_of,
)
from lite_runtime.device import DeviceFacts
from lite_runtime.latency_statistics import (
    RATIO_CONFIDENCE,
    distribution,
    floors,
    median,
    paired_ratio,
    spread,
    undisturbed,
    unpaired_ratio,
)

METRICS: tuple[Metric, ...] = get_args(Metric)
# A ratio of fewer pairs is not told: resampling three blocks knows nothing of the fourth.
FEWEST_PAIRS = 6


def later_steps(blocks: Sequence[Block]) -> Float[np.ndarray, "blocks sentences steps"]:
    """Steps after the first, which belongs to the first token; of a single token it is all there is."""
    steps = np.array([block.steps for block in blocks])
    return steps[:, :, min(1, steps.shape[2] - 1) :]


def summarise(candidate: Candidate, every: Sequence[Block], protocol: Protocol) -> Summary:
    """A candidate's figures from its blocks."""
    blocks = blocks_of(every, candidate.name)
    steps, encode = later_steps(blocks), np.array([block.encode for block in blocks])
    sentence = np.array([block.sentence for block in blocks])
    first = encode + np.array([[steps[0] for steps in block.steps] for block in blocks])
    apart = spread(np.median(steps, axis=(1, 2)))
    charge, charge_note = _charge(blocks, protocol)
    notes = [charge_note] if charge_note else []
    if noisy := apart > protocol.noise_limit:
        notes.append(f"noisy: blocks differ by {apart:.1%}, more than {protocol.noise_limit:.0%}")
    return Summary(
        candidate=candidate.name,
        blocks=len(blocks),
        load=median(np.array([[block.load] for block in blocks])),
        encode=distribution(encode),
        first_token=distribution(first),
        per_token=distribution(steps.reshape(len(blocks), -1)),
        undisturbed_token=undisturbed(floors(steps)),
        sentence=distribution(sentence),
        tokens_per_second=median(1000 * protocol.tokens / sentence),
        peak_memory=max(block.peak_rss for block in blocks),
        charge_per_1000_tokens=charge,
        spread=apart,
        noisy=noisy,
        notes=tuple(notes),
    )


def _charge(blocks: Sequence[Block], protocol: Protocol) -> tuple[float | None, str | None]:
    """Microampere-hours a thousand tokens, or why they are not known."""
    if any(block.before.energy is None or block.after.energy is None for block in blocks):
        return None, "no energy: this device has no charge counter"
    if any(block.before.charging or block.after.charging for block in blocks):
        return None, "no energy: the battery was on a charger"
    drops = [(block.before.energy or 0) - (block.after.energy or 0) for block in blocks]
    if sum(drops) <= 0:
        return None, "no energy: the charge counter did not move"
    tokens = protocol.tokens * sum(len(block.encode) + protocol.warm_up for block in blocks)
    moved = sum(drop != 0 for drop in drops)
    coarse = f"energy is coarse: the counter moved in {moved} of {len(drops)} blocks" if moved < len(drops) else None
    return 1000 * sum(drops) / tokens, coarse


def compare(candidates: Sequence[Candidate], blocks: Sequence[Block], limit: float | None) -> tuple[Ratio, ...]:
    """Every candidate against the one it names, from blocks of the same round and session."""
    return tuple(ratio for candidate in candidates for ratio in _against_neighbour(candidate, blocks, limit))


def _against_neighbour(candidate: Candidate, blocks: Sequence[Block], limit: float | None) -> Iterator[Ratio]:
    if candidate.against is None:
        return
    theirs = {(block.round, block.session): block for block in blocks_of(blocks, candidate.against)}
    ours = {(block.round, block.session): block for block in blocks_of(blocks, candidate.name)}
    both = sorted(ours.keys() & theirs.keys())
    if len(both) < FEWEST_PAIRS:
        return
    own, other = ([side[key] for key in both] for side in (ours, theirs))
    for metric in METRICS:
        yield Ratio(
            metric=metric,
            candidate=candidate.name,
            against=candidate.against,
            kind="interleaved",
            estimate=paired_ratio(samples(metric, own), samples(metric, other), RATIO_CONFIDENCE),
            limit=limit,
        )


def samples(metric: Metric, blocks: Sequence[Block]) -> Float[np.ndarray, "blocks samples"]:
    """What ratios compare, in milliseconds: every sentence's encoding, or the quickest steps (``floors``)."""
    return floors(later_steps(blocks)) if metric == "per_token" else np.array([block.encode for block in blocks])


def compare_stored(result: BenchResult, baseline: BenchResult, limit: float | None) -> tuple[Ratio, ...]:
    """Every candidate against its namesake in an earlier result.

    Where each result is of one bundle, its name does not matter: only format, precision, cache and threads.

    Raises:
        BenchError: the results have no candidate in common, or too few blocks.
    """
    if min(result.protocol.rounds, baseline.protocol.rounds) < FEWEST_PAIRS:
        raise BenchError(f"too few blocks to compare: measure both with --blocks {FEWEST_PAIRS} or more")
    alone = len(result.bundles) == len(baseline.bundles) == 1
    stored = {_key(candidate, alone): candidate for candidate in baseline.candidates}
    ratios = []
    for candidate in result.candidates:
        if other := stored.get(_key(candidate, alone)):
            found = [_stored_ratio(metric, candidate, other, result, baseline) for metric in METRICS]
            ratios += [ratio.model_copy(update={"limit": limit}) for ratio in found]
    if not ratios:
        names = ", ".join(candidate.name for candidate in baseline.candidates)
        raise BenchError(f"the baseline has none of these candidates; it has: {names}")
    return tuple(ratios)


def _key(candidate: Candidate, alone: bool) -> str:
    return candidate.form if alone else candidate.name


def _stored_ratio(
    metric: Metric, candidate: Candidate, other: Candidate, result: BenchResult, baseline: BenchResult
) -> Ratio:
    ours = samples(metric, blocks_of(result.blocks, candidate.name))
    theirs = samples(metric, blocks_of(baseline.blocks, other.name))
    estimate = unpaired_ratio(ours, theirs, RATIO_CONFIDENCE)
    return Ratio(metric=metric, candidate=candidate.name, against=other.name, kind="stored", estimate=estimate)


def check_comparable(facts: DeviceFacts, protocol: Protocol, baseline: BenchResult) -> None:
    """Whether a baseline says anything about a measurement.

    Raises:
        BenchError: it is of another device, or was measured in another way.
    """
    for what in ("model", "soc", "abi", "emulated"):
        ours, theirs = getattr(facts, what), getattr(baseline.device, what)
        if ours != theirs:
            raise BenchError(
                f"the baseline is of another device ({what} {theirs}, here {ours}): measure a baseline on this one"
            )
    for what in ("tokens", "sentences"):
        ours, theirs = getattr(protocol, what), getattr(baseline.protocol, what)
        if ours != theirs:
            raise BenchError(f"the baseline was measured with --{what} {theirs}, not {ours}: use the same")


def notes_of(facts: DeviceFacts, blocks: Sequence[Block]) -> tuple[str, ...]:
    """What a reader of the whole result must know."""
    notes = []
    if facts.emulated:
        notes.append(f"emulated, not a measurement: {facts.emulated}")
    if all(b.before.thermal_status is None and b.before.temperature is None for b in blocks):
        notes.append("the device tells nothing of its heat: blocks started without a thermal gate")
    if any(one.session != next_one.session for one, next_one in pairwise(blocks)):
        notes.append(f"resumed {max(block.session for block in blocks)} times")
    return tuple(notes)
