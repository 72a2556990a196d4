"""What is said of times is true as often as it claims: on simulated samples, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

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

TIMES = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(0.01, 1e4))


@settings(max_examples=20, deadline=None)
@given(TIMES)
def test_percentiles_are_ordered_and_inside_their_intervals(samples: np.ndarray) -> None:
    found = distribution(samples)
    assert found.p50.value <= found.p90.value <= found.p99.value
    for _, estimate in found:
        assert samples.min() * (1 - 1e-9) <= estimate.low <= estimate.high <= samples.max() * (1 + 1e-9)
    assert found == distribution(samples), "equal samples must give equal answers"


@settings(max_examples=20, deadline=None)
@given(TIMES, st.floats(0.1, 10))
def test_figures_scale_with_the_clock(samples: np.ndarray, factor: float) -> None:
    once, scaled = median(samples), median(samples * factor)
    assert [scaled.low, scaled.value, scaled.high] == pytest.approx(
        [once.low * factor, once.value * factor, once.high * factor]
    )
    assert spread(samples[:, 0] * factor) == pytest.approx(spread(samples[:, 0]))


@settings(max_examples=10, deadline=None)
@given(TIMES)
def test_a_ratio_the_other_way_round_is_its_inverse(samples: np.ndarray) -> None:
    there, back = (paired_ratio(*sides, 0.95) for sides in ((samples, samples[::-1]), (samples[::-1], samples)))
    assert there.value == pytest.approx(1 / back.value)
    assert there.low == pytest.approx(1 / back.high)
    assert there.pairs == len(samples)
    same = paired_ratio(samples, samples, 0.95)
    assert (same.low, same.value, same.high) == (1, 1, 1)


def test_intervals_cover_blocks_that_differ() -> None:
    """A bootstrap that took all samples as independent would cover far less than it claims."""
    rng = np.random.default_rng(1)
    covered = flat = 0
    for _ in range(50):
        blocks = rng.normal(10, 1, size=(20, 1)) + rng.normal(0, 0.3, size=(20, 30))
        found = median(blocks)
        covered += found.low <= 10 <= found.high
        alone = median(blocks.reshape(1, -1))
        flat += alone.low <= 10 <= alone.high
    assert covered >= 44
    assert flat <= 30


def simulated(rng: np.random.Generator, noise: str) -> np.ndarray:
    """Thirty blocks of three samples of a program that takes 1, 1.1 and 1.2."""
    quiet = np.array([1.0, 1.1, 1.2]) * np.exp(rng.normal(0, 0.01, (30, 3)))
    if noise == "quiet":
        return quiet
    if noise == "slow":
        return quiet * np.exp(rng.normal(0, 0.05, (30, 1)))
    # Other work: many blocks take up to twice as long.
    return quiet * np.where(rng.random((30, 1)) < 0.4, 1 + rng.random((30, 1)), 1)


@pytest.mark.parametrize("noise", ["quiet", "slow", "disturbed"])
def test_an_honest_comparison_hardly_ever_fails(noise: str) -> None:
    rng = np.random.default_rng(2)
    found = [paired_ratio(simulated(rng, noise), simulated(rng, noise), RATIO_CONFIDENCE) for _ in range(50)]
    assert sum(not f.low <= 1 <= f.high for f in found) <= 1
    assert not any(f.low > 1.05 for f in found)


@pytest.mark.parametrize("noise", ["quiet", "disturbed"])
def test_ten_per_cent_are_seen_beyond_five(noise: str) -> None:
    rng = np.random.default_rng(3)
    found = [paired_ratio(1.1 * simulated(rng, noise), simulated(rng, noise), RATIO_CONFIDENCE) for _ in range(50)]
    assert sum(f.low > 1.05 for f in found) >= 49


def test_neighbours_cancel_what_both_suffer() -> None:
    """A device that slows down to half its speed, and candidates in the order A B B A."""
    speed = np.linspace(1, 2, 60)[:, None]
    ours, theirs = speed[0::2].copy(), speed[1::2].copy()
    ours[1::2], theirs[1::2] = speed[3::4], speed[2::4]
    paired = paired_ratio(1.02 * ours, theirs, RATIO_CONFIDENCE)
    unpaired = unpaired_ratio(1.02 * ours, theirs, RATIO_CONFIDENCE)
    assert paired.value == pytest.approx(1.02, abs=0.02)
    assert paired.high - paired.low < 0.07 < unpaired.high - unpaired.low


def test_other_work_is_not_taken_for_cost() -> None:
    rng = np.random.default_rng(4)
    quiet = np.broadcast_to(np.linspace(1.0, 1.3, 39), (20, 12, 39))
    disturbed = quiet + rng.exponential(1.0, quiet.shape) * (rng.random(quiet.shape) < 0.8)
    assert undisturbed(floors(disturbed)).value == pytest.approx(undisturbed(floors(quiet)).value, rel=0.01)
    assert np.median(disturbed) > 1.2 * np.median(quiet)


def test_floors_see_a_slowdown_of_late_positions_only() -> None:
    quiet = np.ones((4, 3, 30))
    slowed = quiet.copy()
    slowed[:, :, 20:] *= 1.3
    assert paired_ratio(floors(slowed), floors(quiet), 0.95).value == pytest.approx(1.3 ** (1 / 3))


def test_a_single_block_or_step_is_enough_for_figures() -> None:
    assert spread(np.array([3.0])) == 0
    assert undisturbed(floors(np.full((1, 1, 1), 2.0))).value == pytest.approx(2.0)
    assert distribution(np.full((1, 1), 2.0)).p99.low == 2.0
