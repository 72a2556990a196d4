"""``lite-export report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lite_export.cli.lines import output_stream
from lite_export.cli.options import examples

EXAMPLES = examples(
    "lite-export report bench.json",
    "lite-export report phone.json laptop.json --output report.html",
    "lite-export report before.json after.json parity.json --output report.html",
)
_DEFAULT_OUTPUT = Path("report.html")


def report(
    results: Annotated[
        list[Path], typer.Argument(help="Results of lite-export bench, and of lite-export parity --json.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = _DEFAULT_OUTPUT,
) -> None:
    """Make one HTML file of results: latency, its distribution and course, size against speed and BLEU, parity.

    The file loads nothing from elsewhere. Runs are compared with the one named before them.
    """
    from lite_export.report.inputs import read_inputs
    from lite_export.report.page import render

    page = render(read_inputs(results))
    with output_stream(output) as stream:
        stream.write(page)
    print(f"report: {output}")
