"""Measure latency on one device.

1. push the runner and the bundles  2. a round that is thrown away: files come into the page cache, clocks rise
3. rounds of blocks (see bench_plan), each after the thermal gate, each kept in the journal
4. summarise (see bench_summary)
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lite_runtime.bench_journal import Header, Journal, open_journal
from lite_runtime.bench_plan import Contender, Plan
from lite_runtime.bench_result import BenchError, BenchResult, Block
from lite_runtime.bench_summary import check_comparable, compare, compare_stored, notes_of, summarise
from lite_runtime.device import Condition, Device, DeviceFacts
from lite_runtime.native_runner import NativeRunner
from lite_runtime.runner_protocol import Measured, RunnerResult
from lite_runtime.thermal_gate import ThermalGate

# Digits of a millisecond that are kept: a clock's own resolution, and files stay small.
_DIGITS = 4


@dataclass(frozen=True)
class Bench:
    """A plan on a device.

    Attributes:
        runner: the native runner's folder for this device.
        journal: the file for finished blocks.
        timeout: seconds for one block.
        baseline: an earlier result of this device, to compare with.
        limit: how much slower than the baseline, or than ``against`` of the plan, is a regression: 0.05 is 5 %.
        say: told what is waited for.
        advance: called with the number of blocks done, the unreported ones among them.
    """

    plan: Plan
    device: Device
    runner: Path
    journal: Path
    gate: ThermalGate = field(default_factory=ThermalGate)
    timeout: float = 300.0
    baseline: BenchResult | None = None
    limit: float | None = None
    say: Callable[[str], None] = lambda line: None
    advance: Callable[[int], None] = lambda done: None

    def blocks(self) -> int:
        """How many blocks ``run`` will run when it starts from nothing."""
        return len(self.plan.contenders) * (self.plan.options.rounds + 1)

    def run(self, resume: bool = False) -> tuple[BenchResult, Journal]:
        """Measure; the journal is to be removed when the result is safe.

        Raises:
            BenchError: the journal or the baseline cannot be used (see bench_journal, bench_summary).
            DeviceError: the device is missing, hot, or its runner failed; finished blocks are in the journal.
        """
        facts = self.device.facts()
        if self.baseline:
            check_comparable(facts, self.plan.options.protocol(), self.baseline)
        identity = facts.model_copy(update={"governor": None, "memory": None}).model_dump_json()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        header = Header(plan=self.plan.fingerprint(identity), started=now)
        journal = open_journal(self.journal, header, resume)
        self._measure(journal)
        return self._result(facts, journal), journal

    def _measure(self, journal: Journal) -> None:
        left = list(self._left(journal.blocks))
        if not left:
            return
        self.say("pushing the runner and the bundles")
        runner = NativeRunner(self.device, self.runner)
        for place, bundle in {c.place: c.bundle for c in self.plan.contenders}.items():
            runner.push_bundle(bundle, [c.entry for c in self.plan.contenders if c.place == place], place)
        done, session = len(journal.blocks), journal.session
        for contender in self.plan.order(0):
            self._block(runner, contender, 0, session)
            self.advance(done := done + 1)
        for number, contender in left:
            journal.append(self._block(runner, contender, number, session))
            self.advance(done := done + 1)

    def _left(self, blocks: list[Block]) -> Iterator[tuple[int, Contender]]:
        finished = {(block.round, block.candidate) for block in blocks}
        for number in range(self.plan.options.rounds):
            for contender in self.plan.order(number):
                if (number, contender.candidate.name) not in finished:
                    yield number, contender

    def _block(self, runner: NativeRunner, contender: Contender, number: int, session: int) -> Block:
        before = self.gate.wait(self.device, self.say)
        result = runner.run(contender.request(self.plan.options), self.timeout)
        return _as_block(contender, result, number, session, before, self.device.condition())

    def _result(self, facts: DeviceFacts, journal: Journal) -> BenchResult:
        plan, blocks = self.plan, journal.blocks
        result = BenchResult(
            producer=f"lite-export {importlib.metadata.version('lite-export')}",
            started=journal.header.started,
            device=facts,
            protocol=plan.options.protocol(),
            bundles=plan.bundles,
            candidates=plan.candidates,
            summaries=tuple(summarise(c, blocks, plan.options.protocol()) for c in plan.candidates),
            ratios=compare(plan.candidates, blocks, self.limit if plan.against else None),
            notes=notes_of(facts, blocks),
            blocks=tuple(sorted(blocks, key=lambda block: block.round)),
        )
        if self.baseline is None:
            return result
        stored = compare_stored(result, self.baseline, self.limit)
        return result.model_copy(update={"ratios": (*result.ratios, *stored)})


def _as_block(
    contender: Contender, result: RunnerResult, number: int, session: int, before: Condition, after: Condition
) -> Block:
    measured = result.result
    if not isinstance(measured, Measured) or len(measured.timings) != len(contender.sources):
        raise BenchError("the native runner answered another question: use one built from this version")
    return Block(
        candidate=contender.candidate.name,
        round=number,
        session=session,
        before=before,
        after=after,
        runtime=result.runtime,
        abi=result.abi,
        peak_rss=result.peak_rss,
        load=round(measured.load, _DIGITS),
        encode=tuple(round(timing.encode, _DIGITS) for timing in measured.timings),
        steps=tuple(tuple(round(step, _DIGITS) for step in timing.steps) for timing in measured.timings),
        sentence=tuple(round(timing.sentence, _DIGITS) for timing in measured.timings),
    )
