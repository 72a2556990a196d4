"""``lite-export export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lite_export.cli.console import stage, table_console
from lite_export.cli.lines import chunks
from lite_export.cli.options import examples, model_path

if TYPE_CHECKING:
    from lite_runtime.manifest import Manifest

EXAMPLES = examples(
    "lite-export export",
    "lite-export export runs/phone/final --output bundles/mine",
    "lite-export export --to onnx,coreml,executorch --precision fp32,int8",
    "lite-export export --precision int8 --extras text,ort",
    "lite-export export --to executorch --precision int8 --cache explicit,stateful",
    "lite-export export fr-en --precision int8",
    "lite-export export runs/phone/final --sentences my-sentences.txt",
)


def export(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="A model folder, or a shipped model: en-fr, fr-en. Default: en-fr.",
            parser=model_path,
            metavar="<path|name>",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Bundle to write; default: bundles/MODEL_ID.", show_default=False),
    ] = None,
    to: Annotated[str, typer.Option(help="Formats: onnx, coreml, executorch; several with commas.")] = "onnx",
    precision: Annotated[
        str, typer.Option(help="Precisions: fp32, fp16, int8, int4, palette4, as far as the format has them.")
    ] = "fp32",
    cache: Annotated[
        str | None,
        typer.Option(
            help="explicit (the app carries the state) or stateful (the runtime does); default: the format's own.",
            show_default=False,
        ),
    ] = None,
    extras: Annotated[
        str | None,
        typer.Option(
            help="Further ONNX files: text (text in, text out in one graph), ort (for reduced mobile builds).",
            show_default=False,
        ),
    ] = None,
    sentences: Annotated[
        Path | None,
        typer.Option(help="Source sentences for the golden; default: the model folder's.", show_default=False),
    ] = None,
) -> None:
    """Export a model to a bundle: graphs with incremental-decoding caches, tokenizer, golden, manifest.

    Every format comes in every precision asked for. The bundle appears whole or not at all: Ctrl-C or a full disk
    leaves what was there before.
    """
    # Planned first: what cannot be had shows before anything heavy is imported.
    from lite_export.recipes import check_extras, plan

    recipes = plan(to.split(","), precision.split(","), cache.split(",") if cache else ())
    more = extras.split(",") if extras else []
    check_extras(more)
    from lite_export.bundle_writer import write_bundle
    from lite_export.loading import load_model_card, shipped_model

    folder = model or shipped_model()
    target = output or Path("bundles") / load_model_card(folder).model_id
    lines = _lines(sentences) if sentences else None
    with stage("loading the model") as report:
        manifest = write_bundle(folder, target, lines, recipes, more, report)
    _print(target, manifest)


def _lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        return [line for chunk in chunks(file, str(path), 1000) for line in chunk]


def _print(target: Path, manifest: Manifest) -> None:
    from rich.filesize import decimal
    from rich.table import Table

    console = table_console()
    title = f"{manifest.card.model_id}, {manifest.card.parameters / 1e6:.2f} M parameters"
    table = Table("part", "file", "size", title=title)
    table.columns[2].justify = "right"
    for file in manifest.files:
        table.add_row("all formats", file.path, decimal(file.bytes))
    for form in manifest.formats:
        table.add_section()
        for file in form.files:
            table.add_row(form.name, file.path, decimal(file.bytes))
    console.print(table)
    for form in manifest.formats:
        for note in form.notes:
            console.print(f"{form.name}, {note}", soft_wrap=True)
    console.print(f"bundle: {target}", soft_wrap=True)
    console.print(f"next:   lite-export parity {target}", soft_wrap=True)
