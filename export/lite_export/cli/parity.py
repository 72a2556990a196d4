"""``lite-export parity``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from lite_export.cli.console import bar, stage, table_console
from lite_export.cli.lines import output_stream
from lite_export.cli.options import examples

if TYPE_CHECKING:
    from lite_runtime.bundle import Bundle
    from lite_runtime.ladder import ParityReport
    from lite_runtime.session import Session

EXAMPLES = examples(
    "lite-export parity",
    "lite-export parity bundles/phone-en-fr",
    "lite-export parity bundles/mine --model runs/phone/final --json parity.json",
    "lite-export parity bundles/mine --recorded",
)


def parity(
    bundle: Annotated[
        Path | None,
        typer.Argument(help="A bundle; default: the shipped model, exported for the occasion.", show_default=False),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", help="The model folder it came from; default: the shipped.", show_default=False),
    ] = None,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Compare with the steps recorded at export; needs no PyTorch.")
    ] = False,
    sentences: Annotated[
        int | None, typer.Option(min=1, help="Use only the first so many sentences.", show_default=False)
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the report here.", show_default=False)
    ] = None,
) -> None:
    """Prove that a bundle computes what PyTorch computes.

    Every step of real sentences: logits and every state tensor; then the tokens and scores of greedy and
    beam search. A breach names the first step and tensor that differ. Exit code 1 on a breach.
    """
    from lite_export.loading import shipped_model

    folder = model or shipped_model()
    with _opened(bundle, folder) as opened:
        report = _climb(opened, None if recorded else _pytorch(opened, folder), sentences)
    _print(report)
    if json_file:
        with output_stream(json_file) as stream:
            stream.write(report.model_dump_json(indent=2) + "\n")
    if not report.passed:
        raise typer.Exit(1)


@contextmanager
def _opened(bundle: Path | None, model: Path) -> Iterator[Bundle]:
    from lite_runtime.bundle import open_bundle

    if bundle is not None:
        yield open_bundle(bundle)
        return
    from lite_export.bundle_writer import write_bundle

    with TemporaryDirectory() as temporary:
        target = Path(temporary) / "bundle"
        with stage("no bundle given: exporting the model to a temporary folder") as report:
            write_bundle(model, target, report=report)
        yield open_bundle(target)


def _pytorch(bundle: Bundle, folder: Path) -> Session:
    # Imported only here: with --recorded no PyTorch need be installed.
    from lite_export.reference import reference_session

    return reference_session(bundle, folder)


def _climb(bundle: Bundle, reference: Session | None, sentences: int | None) -> ParityReport:
    from lite_runtime.ladder import climb, pieces

    done = count(1)
    with bar("comparing", pieces(bundle, reference is not None, sentences)) as show:
        return climb(bundle, reference, sentences, lambda: show(next(done)))


def _print(report: ParityReport) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = table_console()
    table = Table("format", "rung", "checked", "worst", "at", "tolerance", "result")
    breaches = []
    for entry in report.formats:
        for rung in entry.rungs:
            result = "[green]equal[/]" if rung.passed else "[red]BREACH[/]"
            name = f"{entry.format} {entry.precision}"
            worst, allowed = f"{rung.worst:.2e}", f"{rung.tolerance:.0e}"
            table.add_row(name, rung.name, f"{rung.checked:,}", worst, rung.worst_tensor, allowed, result)
            if rung.breach:
                breaches.append(f"{name}, {rung.name}: first at {rung.breach}")
    sentences = max(entry.sentences for entry in report.formats)
    against = "PyTorch" if report.reference == "pytorch" else "the recording"
    table.title = f"{report.model_id}: {sentences} sentences against {against}"
    console.print(table)
    for breach in breaches:
        console.print(f"[red]breach[/] {escape(breach)}", soft_wrap=True)
