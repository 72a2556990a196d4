"""``lite-export train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lite_export.cli.errors import InputError
from lite_export.cli.options import Threads, examples, model_folder

if TYPE_CHECKING:
    from lite_export.cli.train_view import View
    from lite_transformer.training.recipe import Recipe

EXAMPLES = examples(
    "lite-export train configs/phone-en-fr.yaml --data data --output runs/phone",
    "torchrun --nproc-per-node 2 -m lite_export.cli train RECIPE.yaml --data data --output runs/big",
)


def train(
    recipe: Annotated[Path, typer.Argument(help="The run as a YAML file: data, model, schedule.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Folder the recipe's paths are relative to.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.", show_default=False)],
    threads: Threads = None,
) -> None:
    """Train a model, or continue where an interrupted run stands.

    Ctrl-C saves and stops; the same command continues. The result is OUTPUT/final, a model folder.
    """
    from rich.console import Console

    from lite_export.cli.train_view import view_on

    chosen = _validated(recipe)
    is_main = os.environ.get("RANK", "0") == "0"
    with view_on(Console(quiet=not is_main)) as view:
        _run(chosen, data, output, threads, view)


def _validated(path: Path) -> Recipe:
    """The recipe, checked before anything heavy is imported."""
    from lite_transformer.presets import PRESETS
    from lite_transformer.training.recipe import load_recipe

    recipe = load_recipe(path)
    if recipe.start is not None:
        return recipe.model_copy(update={"start": str(model_folder(recipe.start))})
    if recipe.preset not in PRESETS:
        raise InputError(f"{path}: no preset {recipe.preset!r}; there are: {', '.join(PRESETS)}")
    return recipe


def _run(recipe: Recipe, data: Path, output: Path, threads: int | None, view: View) -> None:
    import torch

    from lite_export.evaluate import validation_bleu
    from lite_export.loading import write_sentences, write_trained_card
    from lite_transformer.training import loop
    from lite_transformer.training.corpus import read_corpus

    if threads:
        torch.set_num_threads(threads)
    try:
        final = loop.train(recipe, data, output, view.metrics, view.say, validation_bleu)
    except loop.Interrupted as stopped:
        view.say(f"interrupted: {stopped}; state is in {output}")
        raise typer.Exit(130) from None
    if os.environ.get("RANK", "0") == "0":
        write_trained_card(final, recipe)
        write_sentences(final, [source for source, _ in read_corpus(data, recipe.validation)])
        _draw(output, view)
        view.say(f"done: the model is in {final}; try: lite-export translate --model {final} 'Good morning.'")


def _draw(output: Path, view: View) -> None:
    from lite_export.cli.curve import draw_curve

    if not (output / "log.jsonl").exists():
        return
    try:
        draw_curve(output / "log.jsonl", output / "curve.svg")
    except ModuleNotFoundError as missing:
        view.say(f"no curve drawn: {missing.name} is not installed (pip install 'lite-export[report]')")
    else:
        view.say(f"curve: {output / 'curve.svg'}")
