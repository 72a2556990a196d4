"""Measuring with the real runner, on this machine: figures, comparisons, heat, and going on after a break."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from lite_runtime.bench import Bench
from lite_runtime.bench_plan import Plan
from lite_runtime.bench_result import BenchError, BenchResult, Ratio, read_result
from lite_runtime.bench_summary import check_comparable, compare, compare_stored, summarise
from lite_runtime.device import Completed, Condition, DeviceError
from lite_runtime.host_device import HostDevice
from lite_runtime.latency_statistics import RatioEstimate
from lite_runtime.thermal_gate import ThermalGate

Maker = Callable[[HostDevice], Bench]


class Unplugged(HostDevice):
    """This machine, gone after so many runs."""

    def __init__(self, runs: int) -> None:
        super().__init__()
        self.left = runs

    def run(self, command: Sequence[str], timeout: float, environment: Mapping[str, str] | None = None) -> Completed:
        if not self.left:
            raise DeviceError("host is gone: plug it in")
        self.left -= 1
        return super().run(command, timeout, environment)


class Phone(HostDevice):
    """This machine with a phone's conditions: the next of a list at every look, the last one for ever."""

    def __init__(self, *conditions: Condition) -> None:
        super().__init__()
        self.conditions = list(conditions)

    def condition(self) -> Condition:
        return self.conditions.pop(0) if len(self.conditions) > 1 else self.conditions[0]


def test_every_sample_is_there_and_makes_sense(result: BenchResult, plan: Plan) -> None:
    assert len(result.blocks) == 8 * 2
    assert {(block.round, block.candidate) for block in result.blocks} == {
        (number, candidate.name) for number in range(8) for candidate in plan.candidates
    }
    for block in result.blocks:
        assert np.shape(block.steps) == (3, 12)
        assert np.shape(block.encode) == np.shape(block.sentence) == (3,)
        for encode, steps, sentence in zip(block.encode, block.steps, block.sentence, strict=True):
            assert 0 < encode + sum(steps) <= sentence + 0.01
        assert block.peak_rss > 1e6
        assert block.load > 0
        assert "onnxruntime" in block.runtime


def test_figures_hang_together(result: BenchResult) -> None:
    for summary in result.summaries:
        assert summary.undisturbed_token.value <= summary.per_token.p50.value <= summary.per_token.p99.value
        assert summary.encode.p50.value <= summary.first_token.p50.value <= summary.sentence.p50.value
        assert summary.tokens_per_second.value == pytest.approx(12000 / summary.sentence.p50.value, rel=0.5)
        assert summary.peak_memory == max(b.peak_rss for b in result.blocks if b.candidate == summary.candidate)


@pytest.mark.parametrize("times", [1.0, 1.25])
def test_the_ratio_is_that_of_the_samples(result: BenchResult, times: float) -> None:
    """Measured samples, multiplied: how far two runs on a busy machine lie apart is not for a test."""
    assert [(ratio.metric, ratio.estimate.pairs) for ratio in result.ratios] == [("encode", 8), ("per_token", 8)]
    theirs = [block for block in result.blocks if block.candidate == result.ratios[0].against]
    ours = [
        block.model_copy(
            update={
                "candidate": result.ratios[0].candidate,
                "encode": tuple(encode * times for encode in block.encode),
                "steps": tuple(tuple(step * times for step in sentence) for sentence in block.steps),
            }
        )
        for block in theirs
    ]
    for ratio in compare(result.candidates, [*ours, *theirs], limit=None):
        estimate = ratio.estimate
        assert (estimate.low, estimate.value, estimate.high) == pytest.approx((times, times, times))


def test_a_result_is_read_back_as_it_was(result: BenchResult, result_file: Path) -> None:
    assert read_result(result_file) == result


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "other"}, "is no result of lite-export bench"),
        ({"schema_version": 9}, "has schema 9, this version reads 1"),
        ({"blocks": [{}]}, "is damaged: blocks.0"),
    ],
)
def test_a_file_that_is_no_result(result_file: Path, change: dict, message: str) -> None:
    result_file.write_text(json.dumps(json.loads(result_file.read_text("utf8")) | change))
    with pytest.raises(BenchError, match=message):
        read_result(result_file)


def test_it_goes_on_where_the_device_was_unplugged(bench: Maker) -> None:
    """Two unreported blocks, then five of the sixteen; the pair that was torn apart is not compared."""
    device = Unplugged(runs=7)
    job = bench(device)
    with pytest.raises(DeviceError, match="plug it in"):
        job.run()
    kept = job.journal.read_text("utf8").splitlines()
    assert len(kept) == 1 + 5
    device.left = 1000
    resumed, journal = job.run(resume=True)
    assert device.left == 1000 - 2 - 11, "finished blocks must not be measured again"
    assert journal.path.read_text("utf8").splitlines()[:6] == kept
    assert sorted(block.session for block in resumed.blocks) == [0] * 5 + [1] * 11
    assert {ratio.estimate.pairs for ratio in resumed.ratios} == {7}
    assert "resumed 1 times" in resumed.notes
    device.remove()


def test_nothing_is_run_when_only_the_result_was_missing(bench: Maker) -> None:
    device = Unplugged(runs=18)
    whole, _ = bench(device).run()
    again, _ = bench(device).run(resume=True)
    assert again.blocks == whole.blocks
    device.remove()


def test_a_hot_phone_is_waited_for() -> None:
    hot, cool = Condition(thermal_status=3), Condition(thermal_status=1)
    said: list[str] = []
    gate = ThermalGate(poll=0.01, patience=10.0)
    assert gate.wait(Phone(hot, hot, cool), said.append) == cool
    assert [line.partition("(")[2] for line in said] == ["thermal status 3, 0 s)", "thermal status 3, 0 s)"]


def test_a_phone_that_stays_hot_is_given_up(bench: Maker) -> None:
    device = Phone(Condition(), Condition(), Condition(), Condition(), Condition(), Condition(temperature=51.0))
    job = bench(device)
    job = Bench(job.plan, device, job.runner, job.journal, gate=ThermalGate(hottest=45.0, patience=0.02, poll=0.01))
    with device, pytest.raises(DeviceError, match=r"51.0 of at most 45.0 degrees.*go on with --resume"):
        job.run()
    assert len(job.journal.read_text("utf8").splitlines()) == 1 + 1, "finished blocks are kept"


def test_a_device_that_tells_nothing_is_cool() -> None:
    assert ThermalGate(hottest=40.0).heat(Condition()) is None
    assert ThermalGate().heat(Condition(temperature=90.0)) is None


@pytest.mark.parametrize(
    ("first", "last", "charging", "expected", "note"),
    [
        (None, None, None, None, "has no charge counter"),
        (5000, 4000, True, None, "was on a charger"),
        (5000, 5000, False, None, "did not move"),
        # Four decodes of 12 tokens a block, eight blocks: 384 tokens for 1000 microampere-hours each.
        (5000, 4000, False, 1000 * 8000 / 384, None),
    ],
)
def test_charge(
    result: BenchResult, first: int | None, last: int | None, charging: bool | None, expected: float | None, note: str
) -> None:
    before, after = (Condition(energy=energy, charging=charging) for energy in (first, last))
    blocks = [block.model_copy(update={"before": before, "after": after}) for block in result.blocks]
    summary = summarise(result.candidates[0], blocks, result.protocol)
    assert summary.charge_per_1000_tokens == (None if expected is None else pytest.approx(expected))
    assert any("no energy" in line and note in line for line in summary.notes) == (expected is None)


def test_a_noisy_run_is_called_so(result: BenchResult) -> None:
    candidate = result.candidates[0]
    blocks = [
        block.model_copy(update={"steps": tuple(tuple(step * (1 + block.round) for step in s) for s in block.steps)})
        for block in result.blocks
    ]
    summary = summarise(candidate, blocks, result.protocol)
    assert summary.noisy
    assert any(note.startswith("noisy: blocks differ by") for note in summary.notes)


def test_against_a_stored_result(result: BenchResult) -> None:
    """Of the same figures the ratio is 1; of figures a fifth higher it is 1.2, and a regression."""
    alone = result.model_copy(update={"bundles": result.bundles[:1], "candidates": result.candidates[:1]})
    slower = alone.model_copy(
        update={
            "blocks": tuple(
                block.model_copy(
                    update={
                        "steps": tuple(tuple(1.2 * step for step in steps) for steps in block.steps),
                        "encode": tuple(1.2 * encode for encode in block.encode),
                    }
                )
                for block in alone.blocks
            )
        }
    )
    assert [ratio.estimate.value for ratio in compare_stored(alone, alone, None)] == pytest.approx([1, 1])
    found = compare_stored(slower, alone, 0.0)
    assert [ratio.estimate.value for ratio in found] == pytest.approx([1.2, 1.2])
    assert {ratio.kind for ratio in found} == {"stored"}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("device", {"abi": "riscv64"}, "of another device"), ("protocol", {"tokens": 99}, "use the same")],
)
def test_a_baseline_of_something_else(result: BenchResult, field: str, value: dict, message: str) -> None:
    other = result.model_copy(update={field: getattr(result, field).model_copy(update=value)})
    with pytest.raises(BenchError, match=message):
        check_comparable(result.device, result.protocol, other)


@pytest.mark.parametrize(
    ("low", "high", "regressed", "undecided"),
    [(1.06, 1.2, True, False), (1.0, 1.04, False, False), (1.04, 1.06, False, True), (0.9, 0.95, False, False)],
)
def test_verdicts(low: float, high: float, regressed: bool, undecided: bool) -> None:
    ratio = Ratio(
        metric="encode",
        candidate="a",
        against="b",
        kind="interleaved",
        estimate=RatioEstimate(value=(low + high) / 2, low=low, high=high, pairs=20),
        limit=0.05,
    )
    assert (ratio.regressed, ratio.undecided) == (regressed, undecided)
    free = ratio.model_copy(update={"limit": None})
    assert not (free.regressed or free.undecided)
