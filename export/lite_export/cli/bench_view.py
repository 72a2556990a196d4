"""What ``lite-export bench`` shows: progress of several devices, and the table of each."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lite_export.cli.console import table_console

if TYPE_CHECKING:
    from rich.table import Table

    from lite_runtime.bench_result import BenchResult, Ratio, Summary
    from lite_runtime.latency_statistics import Estimate


@runtime_checkable
class Watch(Protocol):
    """Told how far a device is. Calls may come from several threads."""

    def advance(self, device: str, done: int) -> None:
        """Blocks done."""
        ...

    def say(self, device: str, line: str) -> None:
        """What it waits for."""
        ...


class _Lines:
    """Where standard error is no terminal: what is waited for, and no bars."""

    def advance(self, device: str, done: int) -> None:
        pass

    def say(self, device: str, line: str) -> None:
        print(f"{device}: {line}", file=sys.stderr)


@contextmanager
def watching(totals: Mapping[str, int]) -> Iterator[Watch]:
    """A bar for each device.

    Args:
        totals: blocks to run, by the device's name.
    """
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn()
    # Transient: nothing is left of it above the results.
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks = {name: progress.add_task(name, total=total) for name, total in totals.items()}

        class Bars:
            def advance(self, device: str, done: int) -> None:
                progress.update(tasks[device], completed=done, description=device)

            def say(self, device: str, line: str) -> None:
                progress.update(tasks[device], description=f"{device}: {line}")

        yield Bars()


def print_result(result: BenchResult) -> None:
    """A device's figures, comparisons and notes."""
    from rich.markup import escape

    console = table_console()
    console.print(_figures(result))
    if result.ratios:
        console.print(_comparisons(result))
    protocol = result.protocol
    console.print(
        f"milliseconds, medians with {protocol.confidence:.0%} intervals over {protocol.rounds} blocks of"
        f" {protocol.sentences} sentences, {protocol.tokens} tokens each",
        soft_wrap=True,
    )
    names = _names(result)
    # What is true of all is said once.
    everyone = [note for note in result.summaries[0].notes if all(note in one.notes for one in result.summaries)]
    for summary in result.summaries:
        for note in summary.notes:
            if note not in everyone:
                console.print(f"[yellow]{escape(names[summary.candidate])}[/]: {escape(note)}", soft_wrap=True)
    for note in everyone:
        console.print(f"[yellow]{escape(note)}[/]", soft_wrap=True)
    for note in result.notes:
        console.print(f"[{'bold red' if result.device.emulated else 'yellow'}]{escape(note)}[/]", soft_wrap=True)


def _names(result: BenchResult) -> dict[str, str]:
    """How to call candidates: without the bundle, where there is one only."""
    alone = len(result.bundles) == 1
    return {candidate.name: candidate.form if alone else candidate.name for candidate in result.candidates}


def _figures(result: BenchResult) -> Table:
    from rich.markup import escape
    from rich.table import Table

    device = result.device
    title = f"{device.name}: {device.model or device.system}{f', {device.soc}' if device.soc else ''}"
    table = Table("candidate", title=escape(title), title_justify="left")
    for column in ("load", "encode", "first token", "token", "p90", "p99", "tokens/s", "memory", "spread"):
        table.add_column(column, justify="right")
    for summary in result.summaries:
        table.add_row(escape(_names(result)[summary.candidate]), *_cells(summary))
    return table


def _cells(summary: Summary) -> tuple[str, ...]:
    token = summary.per_token
    return (
        f"{summary.load.value:.0f}",
        _interval(summary.encode.p50),
        _interval(summary.first_token.p50),
        _interval(token.p50),
        f"{token.p90.value:.2f}",
        f"{token.p99.value:.2f}",
        f"{summary.tokens_per_second.value:.0f}",
        f"{summary.peak_memory / 1e6:.0f} MB",
        f"[yellow]{summary.spread:.1%}[/]" if summary.noisy else f"{summary.spread:.1%}",
    )


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f}-{estimate.high:.2f})"


def _comparisons(result: BenchResult) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        "candidate", "against", "what", title="time over the other's, above 1 is slower", title_justify="left"
    )
    for column in (f"ratio ({result.protocol.ratio_confidence:.1%} interval)", "pairs", "verdict"):
        table.add_column(column, justify="right")
    names = _names(result)
    for ratio in result.ratios:
        against = f"{ratio.against} (stored)" if ratio.kind == "stored" else names[ratio.against]
        what = {"encode": "encode", "per_token": "token"}[ratio.metric]
        estimate = ratio.estimate
        interval = f"{estimate.value:.3f} ({estimate.low:.3f}-{estimate.high:.3f})"
        table.add_row(
            escape(names[ratio.candidate]), escape(against), what, interval, str(estimate.pairs), _verdict(ratio)
        )
    return table


def _verdict(ratio: Ratio) -> str:
    if ratio.limit is None:
        estimate = ratio.estimate
        return "slower" if estimate.low > 1 else "faster" if estimate.high < 1 else "no difference seen"
    if ratio.regressed:
        return f"[bold red]REGRESSION[/] beyond {ratio.limit:.0%}"
    return "[yellow]undecided: more --blocks[/]" if ratio.undecided else f"[green]within {ratio.limit:.0%}[/]"
