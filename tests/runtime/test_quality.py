"""Intervals and paired tests: sacreBLEU's own, told apart and named."""

from __future__ import annotations

import random

import pytest

from lite_runtime.quality import compare, score

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "house",
    "station",
    "sat",
    "stood",
    "on",
    "in",
    "mat",
    "garden",
    "red",
    "blue",
    "old",
    "new",
]


@pytest.fixture(scope="module")
def references() -> list[str]:
    chosen = random.Random(1)
    return [" ".join(chosen.choices(WORDS, k=9)) + "." for _ in range(60)]


def worse(references: list[str], share: float) -> list[str]:
    """Every word changed with this chance."""
    chosen = random.Random(2)
    return [" ".join("other" if chosen.random() < share else w for w in line.split()) for line in references]


def test_values_are_those_without_resampling(references: list[str]) -> None:
    outputs = [worse(references, share) for share in (0.1, 0.3)]
    scores, signatures = compare(outputs, references, 200)
    for found, output in zip(scores, outputs, strict=True):
        quality, _ = score(output, references)
        assert (found.bleu.value, found.chrf.value) == pytest.approx((quality.bleu, quality.chrf))
        for one in (found.bleu, found.chrf):
            assert one.low < one.value < one.high
    assert signatures["bleu"].startswith("nrefs:1|bs:200|seed:12345|")
    assert "nc:6" in signatures["chrf"]


def test_each_is_tested_against_the_first(references: list[str]) -> None:
    middle, bad, good = (worse(references, share) for share in (0.2, 0.4, 0.02))
    first, second, third = (found.bleu for found in compare([middle, bad, good], references, 200)[0])
    assert (first.difference, first.p_value, first.verdict) == (None, None, None)
    assert second.difference == pytest.approx(second.value - first.value)
    assert second.verdict == "worse"
    assert third.verdict == "better"
    assert third.p_value == pytest.approx(1 / 201), "the least that 200 resamples can show"


def test_a_word_in_sixty_sentences_is_no_difference(references: list[str]) -> None:
    ours = worse(references, 0.2)
    theirs = [*ours[:-1], references[-1]]
    found = compare([ours, theirs], references, 200)[0][1].bleu
    assert found.difference is not None
    assert found.difference > 0
    assert found.verdict == "no difference"


def test_equal_outputs_do_not_differ(references: list[str]) -> None:
    output = worse(references, 0.2)
    found = compare([output, list(output)], references, 200)[0][1]
    assert (found.bleu.difference, found.bleu.p_value, found.bleu.verdict) == (0, 1, "no difference")
    assert found.chrf.verdict == "no difference"


def test_the_wider_the_fewer_sentences(references: list[str]) -> None:
    output = worse(references, 0.2)
    whole, half = (compare([output[:n]], references[:n], 200)[0][0].bleu for n in (60, 15))
    assert half.high - half.low > whole.high - whole.low
