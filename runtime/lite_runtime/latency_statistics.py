"""What may be said about times: percentiles, intervals, ratios. All from blocks, which are the independent unit.

Samples of one block come from one process within one second, and are not independent of each other. So the bootstrap
is hierarchical: blocks are drawn with replacement, then samples within each drawn block (Davison and Hinkley,
"Bootstrap Methods and their Application", 1997, section 3.8; for programs: Kalibera and Jones, "Rigorous Benchmarking
in Reasonable Time", ISMM 2013). Intervals are percentile intervals. Every function is seeded: equal samples give equal
answers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from lite_runtime.manifest import Part

QUANTILES = (50, 90, 99)
CONFIDENCE = 0.95
# Of ratios, which decide: none of ten honest comparisons may fail by chance, and intervals of 20 pairs cover a little
# less than they claim (tests/bench/test_latency_statistics.py).
RATIO_CONFIDENCE = 0.999
_RESAMPLES = 500
_RATIO_RESAMPLES = 5000
# The share of blocks that may be believed to be undisturbed.
_UNDISTURBED = 0.1
# Resamples computed at once: bounds the memory.
_CHUNK = 50


class Estimate(Part):
    """A figure and its confidence interval."""

    value: float
    low: float
    high: float


class Distribution(Part):
    """Percentiles of a time, in milliseconds."""

    p50: Estimate
    p90: Estimate
    p99: Estimate


class RatioEstimate(Estimate):
    """Ours over theirs; above 1 is slower. ``pairs`` is how many comparisons it rests on."""

    pairs: int = Field(ge=1)


def distribution(samples: Float[np.ndarray, "blocks samples"]) -> Distribution:
    """p50, p90 and p99 over all samples; with a single block the interval tells of its samples only."""
    values = np.percentile(samples, QUANTILES)
    resampled = np.concatenate([np.percentile(part, QUANTILES, axis=1) for part in _resamples(samples)], axis=1)
    estimates = (_estimate(v, r, CONFIDENCE) for v, r in zip(values, resampled, strict=True))
    return Distribution(**dict(zip(("p50", "p90", "p99"), estimates, strict=True)))


def median(samples: Float[np.ndarray, "blocks samples"]) -> Estimate:
    """The median over all samples."""
    resampled = np.concatenate([np.median(part, axis=1) for part in _resamples(samples)])
    return _estimate(np.median(samples), resampled, CONFIDENCE)


def spread(figures: Float[np.ndarray, " blocks"]) -> float:
    """How far blocks are apart: the standard deviation of their figures over the mean; 0 for a single block."""
    return float(np.std(figures, ddof=1) / np.mean(figures)) if len(figures) > 1 else 0.0


def floors(steps: Float[np.ndarray, "blocks sentences steps"]) -> Float[np.ndarray, "blocks thirds"]:
    """The quickest step of each third of the positions, block by block: late positions do more than early ones."""
    parts = np.array_split(steps, min(3, steps.shape[2]), axis=2)
    return np.stack([part.min(axis=(1, 2)) for part in parts], axis=1)


def undisturbed(samples: Float[np.ndarray, "blocks samples"]) -> Estimate:
    """What the work costs when nothing is in its way: the lower decile over blocks, geometric mean over samples.

    Other work only ever adds to a time (Chen and Revels, "Robust Benchmarking in Noisy Environments", 2016), so low
    quantiles tell the program's own cost. Beside two training processes on two cores, a step 10 % slower was seen
    beyond 5 % in 150 of 150 comparisons drawn from recorded blocks, 30 each; by the medians of pairs in 73.
    """
    logs = np.log(samples)
    drawn = _draws(len(logs), np.random.default_rng(0))
    return _exponential(_estimate(_cost(logs), _cost(logs[drawn]), CONFIDENCE))


def paired_ratio(
    ours: Float[np.ndarray, "pairs _"], theirs: Float[np.ndarray, "pairs _"], confidence: float
) -> RatioEstimate:
    """Ours over theirs, undisturbed, from neighbouring blocks.

    Pairs are resampled, not blocks: neighbours share the moment, so what slows both cancels.
    """
    ours, theirs = np.log(ours), np.log(theirs)
    drawn = _draws(len(ours), np.random.default_rng(0))
    return _ratio(ours, theirs, _cost(ours[drawn]) - _cost(theirs[drawn]), confidence)


def unpaired_ratio(
    ours: Float[np.ndarray, "blocks _"], theirs: Float[np.ndarray, "others _"], confidence: float
) -> RatioEstimate:
    """Ours over theirs, undisturbed, from blocks of two moments, each side resampled by itself.

    What changed between the two moments is part of the ratio, and not of its interval.
    """
    ours, theirs = np.log(ours), np.log(theirs)
    rng = np.random.default_rng(0)
    resampled = _cost(ours[_draws(len(ours), rng)]) - _cost(theirs[_draws(len(theirs), rng)])
    return _ratio(ours, theirs, resampled, confidence)


def _ratio(
    ours: Float[np.ndarray, "blocks _"],
    theirs: Float[np.ndarray, "others _"],
    resampled: Float[np.ndarray, " resamples"],
    confidence: float,
) -> RatioEstimate:
    estimate = _exponential(_estimate(_cost(ours) - _cost(theirs), resampled, confidence))
    return RatioEstimate(pairs=min(len(ours), len(theirs)), **estimate.model_dump())


def _cost(logs: Float[np.ndarray, "*resamples blocks samples"]) -> Float[np.ndarray, "*resamples"]:
    """Logarithm of the undisturbed cost."""
    return np.asarray(np.quantile(logs, _UNDISTURBED, axis=-2).mean(axis=-1))


def _draws(count: int, rng: np.random.Generator) -> Int[np.ndarray, "resamples count"]:
    return rng.integers(count, size=(_RATIO_RESAMPLES, count))


def _resamples(samples: Float[np.ndarray, "blocks samples"]) -> Iterator[Float[np.ndarray, "chunk drawn"]]:
    """The hierarchical bootstrap: every row is one resample."""
    blocks, size = samples.shape
    rng = np.random.default_rng(0)
    for _ in range(_RESAMPLES // _CHUNK):
        chosen = rng.integers(blocks, size=(_CHUNK, blocks, 1))
        within = rng.integers(size, size=(_CHUNK, blocks, size))
        yield samples[chosen, within].reshape(_CHUNK, blocks * size)


def _estimate(value: float | np.ndarray, resampled: Float[np.ndarray, " resamples"], confidence: float) -> Estimate:
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value=float(value), low=float(low), high=float(high))


def _exponential(logs: Estimate) -> Estimate:
    return Estimate(**{name: float(np.exp(value)) for name, value in logs.model_dump().items()})
