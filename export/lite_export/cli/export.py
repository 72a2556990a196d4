"""``lite-export export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lite_export.cli.options import examples

if TYPE_CHECKING:
    from lite_runtime.manifest import Manifest

EXAMPLES = examples(
    "lite-export export",
    "lite-export export runs/phone/final --output bundles/mine",
    "lite-export export runs/phone/final --sentences my-sentences.txt",
)


def export(
    model: Annotated[
        Path | None, typer.Argument(help="A model folder; default: the shipped En-Fr model.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Bundle to write; default: bundles/MODEL_ID.", show_default=False),
    ] = None,
    to: Annotated[str, typer.Option(help="Formats, separated by commas.")] = "onnx",
    sentences: Annotated[
        Path | None,
        typer.Option(help="Source sentences for the golden; default: the model folder's.", show_default=False),
    ] = None,
) -> None:
    """Export a model to a bundle: graphs with incremental-decoding caches, tokenizer, golden, manifest.

    The bundle appears whole or not at all: Ctrl-C or a full disk leaves what was there before.
    """
    from rich.console import Console

    from lite_export.bundle_writer import write_bundle
    from lite_export.loading import load_model_card, shipped_model

    folder = model or shipped_model()
    target = output or Path("bundles") / load_model_card(folder).model_id
    lines = sentences.read_text("utf8").splitlines() if sentences else None
    console = Console()
    with console.status("loading the model") as status:
        manifest = write_bundle(folder, target, lines, to.split(","), lambda line: status.update(line))
    _print(console, target, manifest)


def _print(console: object, target: Path, manifest: Manifest) -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    assert isinstance(console, Console)
    table = Table("file", "size", title=f"{manifest.card.model_id}, {manifest.card.parameters / 1e6:.2f} M parameters")
    table.columns[1].justify = "right"
    for entry in (*manifest.files, *(file for form in manifest.formats for file in form.files)):
        table.add_row(entry.path, decimal(entry.bytes))
    console.print(table)
    console.print(f"bundle: {target}", soft_wrap=True)
    console.print(f"next:   lite-export parity {target}", soft_wrap=True)
