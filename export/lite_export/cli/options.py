"""Options that several commands share, with one wording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer.models import OptionInfo

from lite_export.cli.errors import InputError

MODEL_HELP = "A model folder (PyTorch), an exported bundle (ONNX Runtime), or a shipped model: en-fr, fr-en."
DEFAULT_MODEL_HELP = f"{MODEL_HELP} Default: en-fr."


def model_path(value: str) -> Path:
    """What a user calls a model: a path, or the name of a shipped one where there is no such path."""
    from lite_export.loading import shipped_model, shipped_names

    path = Path(value)
    return shipped_model(value) if not path.exists() and value in shipped_names() else path


def model_folder(value: str) -> Path:
    """What a user calls a model, where it must be PyTorch's.

    Raises:
        ModelError: there is no model.
        InputError: it is a bundle.
    """
    from lite_export.loading import is_bundle

    folder = model_path(value)
    if is_bundle(folder):
        raise InputError(f"{value} is a bundle: name the model folder it was made of")
    return folder


def model_option(text: str) -> OptionInfo:
    """``--model``, with its help."""
    return typer.Option("--model", "-m", help=text, parser=model_path, metavar="<path|name>", show_default=False)


Model = Annotated[Path | None, model_option(DEFAULT_MODEL_HELP)]
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
