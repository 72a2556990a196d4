"""``lite-export import-fairseq``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lite_export.cli.options import examples

EXAMPLES = examples("lite-export import-fairseq wmt14.en-fr/checkpoint_best.pt --output models/wmt-en-fr")


def import_fairseq(
    checkpoint: Annotated[Path, typer.Argument(help="The authors' .pt file.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write.", show_default=False)],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of dict.*.txt and BPE codes; default: the checkpoint's.", show_default=False),
    ] = None,
) -> None:
    """Turn a checkpoint of the original Lite Transformer into a model folder, without fairseq.

    Nothing inside the file is executed; a file that asks for it is refused.
    """
    from lite_transformer.import_fairseq import import_checkpoint

    report = import_checkpoint(checkpoint, output, data)
    languages = "-".join(filter(None, (report.source_language, report.target_language))) or "unknown languages"
    print(f"{report.output}: {report.parameters:,} parameters, {languages}")
    for what, imported in (("dictionaries", report.vocabulary), ("BPE codes", report.codes)):
        print(f"{what}: {'imported' if imported else 'none'}")
    for note in report.notes:
        print(f"note: {note}")
