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
from lite_export.cli.errors import InputError
from lite_export.cli.lines import output_stream
from lite_export.cli.options import examples, model_option
from lite_export.cli.parity_device import climb_on_device

if TYPE_CHECKING:
    from lite_runtime.bundle import Bundle
    from lite_runtime.ladder import ParityReport
    from lite_runtime.manifest import FormatEntry
    from lite_runtime.parity import Rung
    from lite_runtime.quality import QualityReference
    from lite_runtime.session import Session

EXAMPLES = examples(
    "lite-export parity",
    "lite-export parity bundles/phone-en-fr",
    "lite-export parity bundles/mine --model runs/phone/final --json parity.json",
    "lite-export parity bundles/mine --format coreml --precision int8",
    "lite-export parity bundles/mine --against bundles/last-release",
    "lite-export parity bundles/mine --test-set test.tsv --beam 4",
    "lite-export parity bundles/mine --recorded",
    "lite-export parity bundles/mine --device adb",
)


def parity(
    bundle: Annotated[
        Path | None,
        typer.Argument(help="A bundle; default: the shipped model, exported for the occasion.", show_default=False),
    ] = None,
    model: Annotated[
        Path | None,
        model_option("The model folder it came from, or a shipped model; default: the shipped of its languages."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Compare with this bundle instead of PyTorch.", show_default=False)
    ] = None,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Compare with the steps recorded at export; needs no PyTorch.")
    ] = False,
    format_name: Annotated[str | None, typer.Option("--format", help="Only this format.", show_default=False)] = None,
    precision: Annotated[str | None, typer.Option(help="Only this precision.", show_default=False)] = None,
    sentences: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Use only the first so many golden sentences. Of few, int8's share of tokens may fail by chance.",
            show_default=False,
        ),
    ] = None,
    test_set: Annotated[
        Path | None,
        typer.Option(
            help="SOURCE<TAB>TARGET lines to compare BLEU on; default: the model folder's test.tsv, if it has one.",
            show_default=False,
        ),
    ] = None,
    beam: Annotated[int, typer.Option(min=1, help="Beam for the test set.")] = 1,
    device: Annotated[
        str | None,
        typer.Option(
            help="Compare there, in the native runner, with the recorded steps: host, adb (the one phone attached) or "
            "adb:SERIAL. lite-export devices lists them.",
            show_default=False,
        ),
    ] = None,
    runner: Annotated[
        Path | None,
        typer.Option(
            help="With --device: the native runner's folder; default: built for the device, and kept.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, help="With --device: seconds for one run of the native runner.")
    ] = 600.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the report here.", show_default=False)
    ] = None,
) -> None:
    """Prove that a bundle computes what PyTorch computes, in every format and precision it holds.

    Every step of real sentences: logits and every state tensor; what each layer gave; the tokens and scores of
    greedy and beam search; BLEU on a test set. A breach names the first step, tensor and layer that differ.
    Exit code 1 on a breach. On a device the native runner compares, with the steps recorded at export.
    """
    if against is not None and recorded:
        raise InputError("--against and --recorded are two references: choose one")
    if device is None and runner is not None:
        raise InputError("--runner is for --device: name one, such as --device adb")
    if device is not None and (model or against or test_set):
        raise InputError("--device compares with the recorded steps: leave out --model, --against and --test-set")
    if recorded and test_set:
        raise InputError("--recorded holds no scores: leave out --test-set, or compare with PyTorch")
    from lite_export.loading import TEST_SET
    from lite_runtime.ladder import Climb

    with _opened(bundle, model) as opened:
        folder = model or origin(opened)
        entries = _entries(opened, format_name, precision)
        if device is not None:
            report = climb_on_device(opened, entries, device, runner, sentences, timeout)
        else:
            # Another bundle may be of any model: only a folder that was named, or is compared with, has its set.
            own_set = folder / TEST_SET if (model or not against) and (folder / TEST_SET).exists() else None
            other = _other(against)
            reference = None if recorded or other else _pytorch(opened, folder)
            climb = Climb(
                bundle=opened,
                reference=reference,
                against=other,
                sentences=sentences,
                quality=_quality(opened, other.session() if other else reference, test_set or own_set, beam),
                entries=entries,
            )
            done = count(1)
            with bar("comparing", climb.pieces()) as show:
                report = climb.run(lambda: show(next(done)))
    _print(report)
    if json_file:
        with output_stream(json_file) as stream:
            stream.write(report.model_dump_json(indent=2) + "\n")
    if not report.passed:
        raise typer.Exit(1)


@contextmanager
def _opened(bundle: Path | None, model: Path | None) -> Iterator[Bundle]:
    from lite_runtime.bundle import open_bundle

    if bundle is not None:
        yield open_bundle(bundle)
        return
    from lite_export.bundle_writer import write_bundle
    from lite_export.loading import shipped_model

    with TemporaryDirectory() as temporary:
        target = Path(temporary) / "bundle"
        with stage("no bundle given: exporting the model to a temporary folder") as report:
            write_bundle(model or shipped_model(), target, report=report)
        yield open_bundle(target)


def origin(bundle: Bundle) -> Path:
    """The shipped model of a bundle's languages; of others, the default, which the weights will not match."""
    from lite_export.loading import shipped_model, shipped_names

    languages = f"{bundle.manifest.card.source_language}-{bundle.manifest.card.target_language}"
    return shipped_model(languages) if languages in shipped_names() else shipped_model()


def _other(path: Path | None) -> Bundle | None:
    from lite_runtime.bundle import open_bundle

    return None if path is None else open_bundle(path)


def _pytorch(bundle: Bundle, folder: Path) -> Session:
    # Imported only here: with --recorded no PyTorch need be installed.
    from lite_export.reference import reference_session

    return reference_session(bundle, folder)


def _entries(bundle: Bundle, format_name: str | None, precision: str | None) -> tuple[FormatEntry, ...]:
    # Complains where there is none.
    bundle.format(format_name, precision)
    return bundle.formats(format_name, precision)


def _quality(bundle: Bundle, reference: Session | None, test_set: Path | None, beam: int) -> QualityReference | None:
    """The test set with the reference's scores, or None where there is no set or no session to translate it."""
    if reference is None or test_set is None:
        return None
    # Reading pairs needs the code that trains, and so PyTorch: not imported with --recorded.
    from lite_export.evaluate import read_set
    from lite_runtime.quality import QualityReference, measure

    data = read_set(test_set, test_set.stem)
    with stage(f"translating {test_set.name} with the reference"):
        scores = measure(bundle.translator_of(reference), data.sources, data.references, beam)
    return QualityReference(data.sources, data.references, beam, scores)


def _print(report: ParityReport) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = table_console()
    table = Table("format", "rung", "checked", "worst", "at", "tolerance", "result")
    breaches = []
    for entry in report.formats:
        for rung in entry.rungs:
            result = "[green]equal[/]" if rung.passed else "[red]BREACH[/]"
            table.add_row(entry.name, rung.name, f"{rung.checked:,}", *_numbers(rung), result)
            if rung.breach:
                breaches.append(f"{entry.name}, {rung.name}: first at {rung.breach}")
        table.add_section()
    sentences = max(entry.sentences for entry in report.formats)
    against = {"pytorch": "PyTorch", "recorded": "the recording", "bundle": str(report.against)}[report.reference]
    table.title = f"{report.model_id}: {sentences} sentences against {against}"
    if report.device is not None:
        table.title += f", on {report.device.name} ({report.device.model or report.device.system})"
    console.print(table)
    if report.device is not None and report.device.emulated:
        console.print(f"emulated: {escape(report.device.emulated)}", soft_wrap=True)
    for breach in breaches:
        console.print(f"[red]breach[/] {escape(breach)}", soft_wrap=True)


def _numbers(rung: Rung) -> tuple[str, str, str]:
    """Worst, place and tolerance as people read them: shares in per cent, BLEU in points."""
    if rung.name in ("tokens", "hypotheses"):
        allowed = "reported only" if rung.tolerance >= 1 else f"{rung.tolerance:.1%}"
        return f"{rung.worst:.2%}", rung.at, allowed
    if rung.name == "bleu":
        return f"{rung.worst:.2f}", rung.at, f"{rung.tolerance:.2f}"
    return f"{rung.worst:.2e}", rung.at, f"{rung.tolerance:.0e}"
