"""``lite-export evaluate``."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lite_export.cli.console import bar, table_console
from lite_export.cli.errors import InputError
from lite_export.cli.lines import output_stream
from lite_export.cli.options import MODEL_HELP, BatchSize, Beam, Threads, examples

if TYPE_CHECKING:
    from lite_export.evaluate import EvaluationSet, SetResult
    from lite_runtime.translator import TranslateOptions

    # The model's label, and its result on one set.
    Results = list[tuple[str, SetResult]]

EXAMPLES = examples(
    "lite-export evaluate --data data",
    "lite-export evaluate --set tatoeba=test.tatoebaA.tsv.xz --limit 200 --beam 1",
    "lite-export evaluate --model runs/phone/final --model bundles/phone --data data --save hypotheses",
)


def evaluate(
    model: Annotated[
        list[Path] | None, typer.Option("--model", "-m", help=MODEL_HELP + " May be repeated.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with mt/SOURCE-TARGET/test.*.tsv.xz.", show_default=False)
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=FILE of SOURCE<TAB>TARGET lines. May be repeated.", show_default=False),
    ] = None,
    beam: Beam = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first pairs of each set.")] = None,
    batch_size: BatchSize = 32,
    threads: Threads = None,
    save: Annotated[Path | None, typer.Option(help="Folder for the translations.", show_default=False)] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for the scores.", show_default=False)] = None,
) -> None:
    """Score models on test sets: sacreBLEU's BLEU and chrF.

    Scores are given raw, and with quotes and spaces normalised on both sides.
    """
    if data is None and not sets:
        raise typer.BadParameter("name the test sets: --data DIR or --set NAME=FILE")
    from lite_export.loading import shipped_model
    from lite_runtime.translator import TranslateOptions

    models = _labelled(model or [shipped_model()])
    # Every set is read before the first sentence is translated: a wrong path shows at once.
    chosen = {label: _sets(path, data, sets or [], limit) for label, path in models.items()}
    results: Results = []
    for label, path in models.items():
        results += _evaluate_model(label, path, chosen[label], TranslateOptions(beam=beam), batch_size, threads, save)
    _print(results)
    if json_file:
        with output_stream(json_file) as stream:
            json.dump([_record(label, result) for label, result in results], stream, indent=2)


def _labelled(paths: list[Path]) -> dict[str, Path]:
    """Models under names to show, all different."""
    from lite_export.loading import is_bundle

    named: dict[str, Path] = {}
    for path in paths:
        label = f"{path.resolve().name} ({'ONNX Runtime' if is_bundle(path) else 'PyTorch'})"
        named[label if label not in named else f"{label} #{len(named) + 1}"] = path
    return named


def _sets(model: Path, data: Path | None, named: list[str], limit: int | None) -> list[EvaluationSet]:
    from lite_export.evaluate import find_sets, read_set
    from lite_export.loading import load_card

    chosen = []
    if data:
        card = load_card(model)
        chosen += find_sets(data, card.source_language, card.target_language, limit)
    for entry in named:
        name, equals, file = entry.partition("=")
        if not (name and equals and file):
            raise InputError(f"--set {entry!r}: write NAME=FILE")
        chosen.append(read_set(Path(file), name, limit))
    return chosen


def _evaluate_model(
    label: str,
    path: Path,
    sets: list[EvaluationSet],
    options: TranslateOptions,
    batch_size: int,
    threads: int | None,
    save: Path | None,
) -> Results:
    from lite_export.evaluate import evaluate as run
    from lite_export.loading import load_translator

    translator = load_translator(path, threads)
    results: Results = []
    for data in sets:
        with bar(f"{label} {data.name}", len(data.sources)) as advance:
            result = run(translator, data, options, batch_size, advance)
        print(f"{label} on {data.name}: BLEU {result.raw.bleu:.2f}", file=sys.stderr)
        if save:
            _save(save / f"{_slug(label)}.{_slug(data.name)}.txt", result)
        results.append((label, result))
    return results


def _save(path: Path, result: SetResult) -> None:
    with output_stream(path) as stream:
        stream.writelines(hypothesis.replace("\n", " ") + "\n" for hypothesis in result.hypotheses)


def _slug(name: str) -> str:
    """A name as part of a file name."""
    return re.sub(r"[^\w-]+", "-", name).strip("-")


def _record(label: str, result: SetResult) -> dict[str, Any]:
    record = dataclasses.asdict(result)
    del record["hypotheses"]
    return {"model": label, **record, "sentences_per_second": result.sentences_per_second}


def _print(results: Results) -> None:
    from rich.table import Table

    console = table_console()
    table = Table("model", "set")
    for column in ("sentences", "BLEU", "chrF", "BLEU norm.", "chrF norm.", "sentences/s"):
        table.add_column(column, justify="right")
    for label, result in results:
        scores = (result.raw.bleu, result.raw.chrf, result.normalised.bleu, result.normalised.chrf)
        speed = f"{result.sentences_per_second:.1f}"
        table.add_row(label, result.set_name, str(result.sentences), *(f"{score:.2f}" for score in scores), speed)
    console.print(table)
    for name, signature in results[0][1].signatures.items():
        console.print(f"{name}: {signature}", soft_wrap=True)
    console.print("norm.: straight quotes and plain spaces on both sides; sentences/s are informational")
