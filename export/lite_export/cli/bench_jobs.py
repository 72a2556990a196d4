"""Measuring on several devices at once: a thread each, results and failures apart."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event

from lite_export.cli.bench_view import Watch, watching
from lite_export.cli.errors import explain
from lite_export.cli.lines import output_stream
from lite_runtime.bench import Bench
from lite_runtime.bench_result import BenchError, BenchResult
from lite_runtime.device import Device, DeviceError


@dataclass(frozen=True)
class Job:
    """A measurement, and the file for its result."""

    bench: Bench
    output: Path


def journal_of(output: Path) -> Path:
    """Where finished blocks are kept until the result is written."""
    return output.with_name(f"{output.stem}.journal.jsonl")


def run_jobs(jobs: Sequence[Job], resume: bool) -> list[BenchResult]:
    """Measure on every device; results are written as they come, each whole or not at all.

    Returns:
        The results of the devices that did not fail; of those that did, the reason is on standard error.

    Raises:
        BenchError, DeviceError: where there is one job only, and it failed.
    """
    stop = Event()
    with watching({job.bench.device.name: job.bench.blocks() for job in jobs}) as watch:
        if len(jobs) == 1:
            return [_run(jobs[0], resume, watch, stop)]
        with ThreadPoolExecutor(len(jobs)) as pool:
            try:
                return [r for r in pool.map(lambda job: _run_or_tell(job, resume, watch, stop), jobs) if r]
            except KeyboardInterrupt:
                # Threads end after the block they are at: what is finished is kept.
                stop.set()
                raise


def _run_or_tell(job: Job, resume: bool, watch: Watch, stop: Event) -> BenchResult | None:
    try:
        return _run(job, resume, watch, stop)
    except (ValueError, OSError) as error:
        message = explain(error)
        if message is None:
            raise
        print(f"error: {job.bench.device.name}: {message}", file=sys.stderr)
        return None


@contextmanager
def _left_clean(device: Device) -> Iterator[None]:
    """Nothing is left on the device. From one that went away nothing can be removed: --resume finds it there, and does.

    The device is one that keeps its workspace (``find_devices``).
    """
    with device:
        try:
            yield
        except BaseException:
            # What failed is on its way out, and says more than that the device is gone.
            with suppress(DeviceError):
                device.remove()
            raise
        device.remove()


def _run(job: Job, resume: bool, watch: Watch, stop: Event) -> BenchResult:
    name = job.bench.device.name

    def advance(done: int) -> None:
        watch.advance(name, done)
        if stop.is_set():
            raise BenchError("interrupted: finished blocks are kept, go on with --resume")

    with _left_clean(job.bench.device):
        bench = replace(job.bench, advance=advance, say=partial(watch.say, name))
        result, journal = bench.run(resume)
    with output_stream(job.output) as stream:
        stream.write(result.model_dump_json() + "\n")
    journal.remove()
    return result
