"""``lite-export bench``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lite_export.cli.bench_view import print_result
from lite_export.cli.console import stage
from lite_export.cli.errors import InputError
from lite_export.cli.lines import check_output_file
from lite_export.cli.options import examples
from lite_runtime.devices import DEVICE_HELP

if TYPE_CHECKING:
    from lite_runtime.device import Device

EXAMPLES = examples(
    "lite-export bench bundles/mine",
    "lite-export bench bundles/mine --device adb --output phone.json",
    "lite-export bench bundles/mine --device adb:all --precision int8 --threads 1,2,4",
    "lite-export bench bundles/mine --against bundles/last-release --max-regression 5%",
    "lite-export bench bundles/mine --baseline last.json --max-regression 5% --output this.json",
    "lite-export bench bundles/mine --device adb --output phone.json --resume",
)
_DEFAULT_OUTPUT = Path("bench.json")


def bench(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles to measure, in the same rounds.")],
    device: Annotated[list[str] | None, typer.Option(help=DEVICE_HELP + " Default: host.", show_default=False)] = None,
    format_name: Annotated[str | None, typer.Option("--format", help="Only this format.", show_default=False)] = None,
    precision: Annotated[str | None, typer.Option(help="Only this precision.", show_default=False)] = None,
    threads: Annotated[str, typer.Option(help="CPU threads; several with commas.")] = "1",
    tokens: Annotated[int, typer.Option(min=2, help="Tokens to decode for each sentence.")] = 40,
    sentences: Annotated[int, typer.Option(min=1, help="Of the bundle's golden ones, in every block.")] = 12,
    blocks: Annotated[
        int, typer.Option(min=2, help="Blocks of each candidate, each a process of its own. More narrow the intervals.")
    ] = 30,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Compare with this bundle, measured in the same rounds: the same moment, so the honest way.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="Compare with this result of an earlier run: another moment, so --against is better.",
            show_default=False,
        ),
    ] = None,
    max_regression: Annotated[
        str | None,
        typer.Option(help="Slower than this, as 5%, is a regression: exit code 1.", show_default=False),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Result to write; of several devices, the device's name is added."),
    ] = _DEFAULT_OUTPUT,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the same command broke off.")] = False,
    runner: Annotated[
        Path | None,
        typer.Option(help="The native runner's folder; default: built for the device, and kept.", show_default=False),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one block.")] = 300,
    max_temperature: Annotated[
        float | None,
        typer.Option(help="Wait while hotter, in degrees Celsius; default: by thermal status.", show_default=False),
    ] = None,
    cool_down: Annotated[float, typer.Option(min=0, help="Seconds to wait for a hot device before giving up.")] = 600,
) -> None:
    """Measure what bundles take on a device: load, encode, first token, per token, sentence, memory, energy.

    Timed inside the native runner. Candidates (bundle, format, precision, cache, threads) take turns in short
    blocks, after the device has cooled down; figures come with intervals, noisy ones are marked. Finished blocks are
    kept: --resume goes on after a phone was unplugged.
    """
    from lite_export.cli.bench_jobs import Job, journal_of, run_jobs
    from lite_runtime.bench import Bench
    from lite_runtime.bench_plan import BenchOptions, make_plan
    from lite_runtime.bench_result import read_result
    from lite_runtime.bench_summary import FEWEST_PAIRS
    from lite_runtime.bundle import open_bundle
    from lite_runtime.devices import find_devices
    from lite_runtime.thermal_gate import ThermalGate

    limit = _limit(max_regression, bool(against or baseline))
    options = BenchOptions(format_name, precision, _threads(threads), tokens, sentences, blocks)
    plan = make_plan([open_bundle(path) for path in bundles], open_bundle(against) if against else None, options)
    stored = read_result(baseline) if baseline else None
    devices = find_devices(device or ["host"], keep=True)
    if stored and len(devices) > 1:
        raise InputError("--baseline is of one device: name one --device")
    gate = ThermalGate(max_temperature, cool_down)
    jobs = []
    for found in devices:
        place = _output(output, found.name, len(devices))
        folder = runner or _runner_for(found)
        jobs.append(Job(Bench(plan, found, folder, journal_of(place), gate, timeout, stored, limit), place))
    results = run_jobs(jobs, resume)
    for result in results:
        print_result(result)
        if limit is not None and all(ratio.limit is None for ratio in result.ratios):
            raise InputError(f"too few blocks to compare: --max-regression needs --blocks {FEWEST_PAIRS} or more")
    if len(results) < len(jobs) or any(result.regressions for result in results):
        raise typer.Exit(1)


def _runner_for(device: Device) -> Path:
    from lite_runtime.runner_choice import runner_for

    with stage("looking for the native runner") as report:
        return runner_for(device.facts(), report).folder


def _limit(text: str | None, compared: bool) -> float | None:
    """5% as 0.05."""
    if text is None:
        return None
    if not re.fullmatch(r"\d+(\.\d+)?%", text):
        raise InputError(f"--max-regression {text}: write per cent, such as 5%")
    if not compared:
        raise InputError("--max-regression needs something to compare with: --against BUNDLE or --baseline FILE")
    return float(text.removesuffix("%")) / 100


def _threads(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) for word in words):
        raise InputError(f"--threads {text}: write numbers with commas, such as 1,2,4")
    return tuple(dict.fromkeys(map(int, words)))


def _output(path: Path, device: str, devices: int) -> Path:
    """The result's file; with several devices each has one of its own."""
    check_output_file(path)
    return (
        path if devices == 1 else path.with_name(f"{path.stem}.{re.sub(r'[^A-Za-z0-9._-]+', '-', device)}{path.suffix}")
    )
