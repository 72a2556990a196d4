"""Who is measured, in which order, over which sentences; and the journal that keeps what is finished."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lite_runtime.bench_journal import Header, open_journal
from lite_runtime.bench_plan import BenchOptions, Plan, make_plan
from lite_runtime.bench_result import BenchError, BenchResult
from lite_runtime.bundle import BundleError, open_bundle
from lite_runtime.golden import load_golden

HEADER = Header(plan="a plan", started="2026-01-01T00:00:00+00:00")


def test_neighbours_and_every_other_round_in_reverse(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    plan = make_plan([bundle], bundle, BenchOptions(threads=(1, 2)))
    names = [contender.candidate.name for contender in plan.order(0)]
    assert names == [
        "tiny: onnx fp32, 1 thread",
        "tiny #2: onnx fp32, 1 thread",
        "tiny: onnx fp32, 2 threads",
        "tiny #2: onnx fp32, 2 threads",
    ]
    assert [contender.candidate.name for contender in plan.order(1)] == names[::-1]
    assert [candidate.against for candidate in plan.candidates] == [names[1], None, names[3], None]
    assert len({contender.place for contender in plan.contenders}) == 2


def test_without_another_bundle_all_are_compared_with_the_first(tiny_bundle: Path) -> None:
    plan = make_plan([open_bundle(tiny_bundle)], None, BenchOptions(threads=(1, 2, 4)))
    assert [candidate.against for candidate in plan.candidates] == [None, *2 * ("tiny: onnx fp32, 1 thread",)]


def test_sentences_are_golden_ones_from_the_shortest_to_the_longest(tiny_bundle: Path, plan: Plan) -> None:
    golden = {s.source for s in load_golden(tiny_bundle / "golden/sentences.json")}
    sources = plan.contenders[0].sources
    assert set(sources) <= golden
    lengths = list(map(len, sources))
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (min(map(len, golden)), max(map(len, golden)))


def test_a_plan_knows_its_own_blocks(tiny_bundle: Path, plan: Plan) -> None:
    bundle = open_bundle(tiny_bundle)
    same = make_plan([bundle], bundle, plan.options)
    other = make_plan([bundle], bundle, BenchOptions(tokens=13, sentences=3, rounds=8))
    assert plan.fingerprint("here") == same.fingerprint("here")
    assert len({plan.fingerprint("here"), plan.fingerprint("there"), other.fingerprint("here")}) == 3


def test_what_cannot_be_planned(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    with pytest.raises(BenchError, match="at most 48 tokens: ask for --tokens 48 or fewer"):
        make_plan([bundle], None, BenchOptions(tokens=49))
    with pytest.raises(BundleError, match="has no int8; it has: onnx fp32 explicit"):
        make_plan([bundle], None, BenchOptions(precision="int8"))


def test_a_journal_gives_back_what_it_was_given(tmp_path: Path, result: BenchResult) -> None:
    path = tmp_path / "journal.jsonl"
    journal = open_journal(path, HEADER, resume=False)
    assert journal.session == 0
    for block in result.blocks[:3]:
        journal.append(block)
    again = open_journal(path, HEADER.model_copy(update={"started": "later"}), resume=True)
    assert again.blocks == list(result.blocks[:3])
    assert (again.session, again.header.started) == (1, HEADER.started)
    again.remove()
    assert not path.exists()


def test_a_line_that_was_being_written_is_left_out(tmp_path: Path, result: BenchResult) -> None:
    path = tmp_path / "journal.jsonl"
    journal = open_journal(path, HEADER, resume=False)
    for block in result.blocks[:2]:
        journal.append(block)
    path.write_bytes(path.read_bytes()[:-20])
    resumed = open_journal(path, HEADER, resume=True)
    assert resumed.blocks == list(result.blocks[:1])
    resumed.append(result.blocks[2])
    assert open_journal(path, HEADER, resume=True).blocks == [result.blocks[0], result.blocks[2]]


def test_a_journal_is_neither_overwritten_nor_mixed_up(tmp_path: Path, result: BenchResult) -> None:
    path = tmp_path / "journal.jsonl"
    with pytest.raises(BenchError, match="nothing to resume"):
        open_journal(path, HEADER, resume=True)
    journal = open_journal(path, HEADER, resume=False)
    assert not path.exists(), "nothing is kept of a measurement without a block"
    journal.append(result.blocks[0])
    before = path.read_bytes()
    with pytest.raises(BenchError, match="go on with --resume, or delete it"):
        open_journal(path, HEADER, resume=False)
    with pytest.raises(BenchError, match="other bundles, options or another device"):
        open_journal(path, HEADER.model_copy(update={"plan": "another"}), resume=True)
    assert path.read_bytes() == before
    shutil.copy(__file__, path)
    with pytest.raises(BenchError, match="damaged or was written by another version"):
        open_journal(path, HEADER, resume=True)
