"""``lite-export``: the command line. Commands import what they need when they run, so that ``--help`` is instant."""

from __future__ import annotations

import importlib.metadata
import io
import sys
from typing import Annotated

import typer

from lite_export.cli import (
    average,
    bench,
    build_runner,
    devices,
    distill,
    doctor,
    evaluate,
    export,
    import_fairseq,
    parity,
    profile,
    report,
    results,
    schema,
    train,
    translate,
)
from lite_export.cli.errors import CommandGroup

app = typer.Typer(cls=CommandGroup, no_args_is_help=True, pretty_exceptions_enable=False)
app.command("translate", epilog=translate.EXAMPLES)(translate.translate)
app.command("export", epilog=export.EXAMPLES)(export.export)
app.command("parity", epilog=parity.EXAMPLES)(parity.parity)
app.command("bench", epilog=bench.EXAMPLES)(bench.bench)
app.command("report", epilog=report.EXAMPLES)(report.report)
app.command("evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("results", epilog=results.EXAMPLES)(results.results)
app.command("train", epilog=train.EXAMPLES)(train.train)
app.command("distill", epilog=distill.EXAMPLES)(distill.distill)
app.command("average", epilog=average.EXAMPLES)(average.average)
app.command("profile", epilog=profile.EXAMPLES)(profile.profile)
app.command("import-fairseq", epilog=import_fairseq.EXAMPLES)(import_fairseq.import_fairseq)
app.command("build-runner", epilog=build_runner.EXAMPLES)(build_runner.build_runner)
app.command("devices", epilog=devices.EXAMPLES)(devices.devices)
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)
app.command("schema", epilog=schema.EXAMPLES)(schema.schema)


def _print_version(asked: bool) -> bool:
    if asked:
        print(f"lite-export {importlib.metadata.version('lite-export')}")
        raise typer.Exit
    return asked


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Lite Transformer from PyTorch to the phone: train, translate, export, and prove that nothing changed."""


def main() -> None:
    """Entry point of ``lite-export``."""
    # Translations are UTF-8 whatever the locale says.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf8", errors="replace")
    app(prog_name="lite-export")
