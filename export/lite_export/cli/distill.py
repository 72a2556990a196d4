"""``lite-export distill``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from lite_export.cli.console import bar
from lite_export.cli.options import MODEL_HELP, BatchSize, examples, model_option

EXAMPLES = examples(
    "lite-export distill --model runs/teacher/final --corpus data/train.tsv.xz -o data/distilled/train.tsv.xz",
    "lite-export distill --model runs/teacher/final --corpus train.tsv.xz -o t.tsv.xz --pick nearest --jobs 8",
    "lite-export distill --model runs/teacher/final --corpus train.tsv.xz -o t.tsv.xz --beam 8 --n-best 4",
    "lite-export distill --model fr-en --corpus french.txt.xz -o data/back.tsv.xz  # back-translation for En-Fr",
)


def distill(
    model: Annotated[Path, model_option(f"The teacher. {MODEL_HELP}")],
    corpus: Annotated[
        Path,
        typer.Option(
            help="SOURCE<TAB>TARGET lines, .tsv, or sentences alone, .txt; also .gz, .xz.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, .tsv.xz.", show_default=False)],
    beam: Annotated[int, typer.Option(min=1, help="Beam width, 1 for greedy.")] = 4,
    n_best: Annotated[int, typer.Option(min=1, help="Hypotheses to keep of each source.")] = 1,
    pick: Annotated[
        Literal["best", "nearest"],
        typer.Option(help="The teacher's best, or of its beam the one nearest to the reference by chrF."),
    ] = "best",
    reverse: Annotated[bool, typer.Option("--reverse", help="The corpus holds TARGET<TAB>SOURCE.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first pairs.", show_default=False)] = None,
    batch_size: BatchSize = 64,
    jobs: Annotated[int, typer.Option(min=1, help="Processes, each with the teacher in memory.")] = 1,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads of each process; default: its share of all.", show_default=False),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Where a PyTorch teacher runs; default: the GPU where there is one.", show_default=False),
    ] = None,
) -> None:
    """Translate a corpus with a teacher, as training text for a student.

    The output is a corpus like any other in a recipe; OUTPUT.json tells what it was made from. After a kill the same
    command goes on where it stood. Sentences of the language that a student shall write, translated by a model of the
    other direction, are back-translation: name the output in its recipe with `reverse: true`.
    """
    from lite_export import distill as work
    from lite_transformer.training.corpus import is_monolingual

    options = work.DistillOptions(beam, n_best, pick, batch_size)
    # Several processes that each take every core stand in each other's way.
    share = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
    teacher = work.Teacher(model, device or _best_device(model), threads or share)
    pairs = work.count_pairs(corpus, limit)
    with bar("distilling", pairs) as advance:
        work.distill(teacher, corpus, output, options, reverse, limit, jobs, advance)
    unit = "sentences" if is_monolingual(corpus) else "pairs"
    print(f"{output}: {pairs:,} {unit} of {corpus} translated by {model}")


def _best_device(model: Path) -> str:
    from lite_export.loading import is_bundle

    if is_bundle(model):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
