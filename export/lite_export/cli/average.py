"""``lite-export average``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lite_export.cli.options import examples, model_folder

EXAMPLES = examples(
    "lite-export average runs/round-1/final runs/round-2/final --output models/both",
    "lite-export average runs/mine/final --precision int8 --output models/half-the-bytes",
)


def average(
    models: Annotated[
        list[str], typer.Argument(help="Model folders; of one, only the precision changes.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write.", show_default=False)],
    precision: Annotated[
        Literal["fp16", "int8"],
        typer.Option(help="Of the weights on disk; int8 has one scale per row, half the bytes."),
    ] = "fp16",
) -> None:
    """Average the weights of several models into one.

    Of models that were trained from one another, or from a common start, the average is often better than each. Beside
    the weights, the result has what the first one has.
    """
    import torch

    from lite_export.average import write_average

    folders = [model_folder(model) for model in models]
    write_average(folders, output, {"fp16": torch.float16, "int8": torch.int8}[precision])
    made = f"the mean of {len(folders)} models" if len(folders) > 1 else f"{models[0]} in {precision}"
    print(f"{output}: {made}; try: lite-export translate --model {output} 'Good morning.'")
