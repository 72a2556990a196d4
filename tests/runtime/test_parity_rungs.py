"""The rungs' arithmetic: what counts as equal, what is named, and which tolerance applies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite_runtime.parity import Differences, Shares
from lite_runtime.quality import score
from lite_runtime.tolerances import TOLERANCES, looser


def test_worst_and_first_are_kept_apart() -> None:
    watch = Differences("steps", 0.1)
    zero = np.zeros((2, 3), np.float32)
    watch.compare(0, -1, "a", zero, zero + 0.05)
    watch.compare(0, 0, "b", zero, zero + np.array([[0, 0, 0], [0, 0.2, 0]], np.float32))
    watch.compare(1, 3, "c", zero, zero + 0.7)
    rung = watch.result()
    assert not rung.passed
    assert (rung.checked, rung.at, round(rung.worst, 3)) == (3, "c", 0.7)
    assert rung.breach is not None
    assert (rung.breach.batch, rung.breach.step, rung.breach.tensor) == (0, 0, "b")
    assert str(rung.breach) == "batch 0, step 0, b, off by 0.2: largest at (1, 1)"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_a_breach_whatever_the_tolerance(bad: float) -> None:
    watch = Differences("outputs", 1e9)
    watch.compare(0, 0, "logits", np.zeros(3), np.array([0, bad, 0]))
    assert not watch.result().passed


def test_another_shape_is_a_breach() -> None:
    watch = Differences("outputs", 1.0)
    watch.compare(0, 0, "logits", np.zeros((2, 3)), np.zeros((2, 4)))
    rung = watch.result()
    assert rung.breach is not None
    assert rung.breach.detail == "shape (2, 4) instead of (2, 3)"


def test_half_precision_is_compared_without_overflow() -> None:
    watch = Differences("outputs", 1.0)
    watch.compare(0, 0, "x", np.full(2, 60000, np.float16), np.full(2, -60000, np.float16))
    assert watch.result().worst == 120000 - 2 * (60000 - float(np.float16(60000)))


def test_nothing_checked_is_no_proof() -> None:
    assert not Differences("layers", 1.0).result().passed
    assert not Shares("tokens", 1.0).result().passed


@given(st.lists(st.booleans(), min_size=1), st.floats(0, 1))
def test_shares(equal: list[bool], tolerance: float) -> None:
    watch = Shares("tokens", tolerance)
    for step, same in enumerate(equal):
        watch.count(same, 0, step, "best token", "")
    rung = watch.result()
    assert rung.worst == equal.count(False) / len(equal)
    assert rung.passed == (rung.worst <= tolerance)
    if not rung.passed:
        assert rung.breach is not None
        assert rung.breach.step == equal.index(False)


def test_every_tolerance_has_a_reason_and_they_widen() -> None:
    assert all(len(t.reason) > 20 for t in TOLERANCES.values())
    loosest = max(TOLERANCES.values(), key=lambda t: t.tensors)
    assert looser(TOLERANCES["fp32"], loosest) is looser(loosest, TOLERANCES["fp32"]) is loosest


def test_score_of_equal_text_is_perfect() -> None:
    lines = ["le chat est sur le tapis rouge", "il pleut des cordes sur la ville"]
    quality, signatures = score(lines, lines)
    assert round(quality.bleu, 6) == round(quality.chrf, 6) == 100
    assert "tok:13a" in signatures["bleu"]
