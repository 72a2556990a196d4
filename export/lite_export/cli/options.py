"""Options that several commands share, with one wording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = "A model folder (PyTorch) or an exported bundle (ONNX Runtime); default: the shipped En-Fr model."

Model = Annotated[Path | None, typer.Option("--model", "-m", help=MODEL_HELP, show_default=False)]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all.", show_default=False)]
Beam = Annotated[
    int | None, typer.Option(min=1, help="Beam width, 1 for greedy; default: the model's.", show_default=False)
]
BatchSize = Annotated[int, typer.Option(min=1, help="Sentences the model sees at once.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def examples(*commands: str) -> str:
    """An epilog that lists commands, one a line."""
    # typer joins the lines of a paragraph: every example is a paragraph of its own.
    return "\n\n".join(["Examples:", *(f"  $ {command}" for command in commands)])
