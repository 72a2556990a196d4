"""``lite-export results``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lite_export.cli.lines import output_stream
from lite_export.cli.options import examples

EXAMPLES = examples(
    "lite-export results scores.json",
    "lite-export results en-fr.json fr-en.json --curve runs/phone --bench bench.json --output results.html",
)
_DEFAULT_OUTPUT = Path("results.html")


def results(
    evaluations: Annotated[list[Path], typer.Argument(help="Results of lite-export evaluate --json.")],
    curves: Annotated[
        list[Path] | None,
        typer.Option("--curve", help="A training run's folder or log.jsonl. May be repeated.", show_default=False),
    ] = None,
    benches: Annotated[
        list[Path] | None,
        typer.Option("--bench", help="A result of lite-export bench. May be repeated.", show_default=False),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = _DEFAULT_OUTPUT,
) -> None:
    """Make one HTML file of evaluations: scores with intervals, learning curves, BLEU against Mult-Adds, size and time.

    The file loads nothing from elsewhere. A measurement belongs to the evaluated model that has its weights.
    """
    from lite_export.report.results_inputs import read_results
    from lite_export.report.results_page import render

    page = render(read_results(evaluations, curves or (), benches or ()))
    with output_stream(output) as stream:
        stream.write(page)
    print(f"results: {output}")
