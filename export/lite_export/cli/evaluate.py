"""``lite-export evaluate``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lite_export.cli.console import bar, stage
from lite_export.cli.errors import InputError
from lite_export.cli.lines import check_output_file, output_stream
from lite_export.cli.options import DEFAULT_MODEL_HELP, BatchSize, Threads, examples, model_option

if TYPE_CHECKING:
    from lite_export.cli.evaluate_store import Store
    from lite_export.evaluate import EvaluationSet, Output
    from lite_export.evaluate_outputs import Recorded
    from lite_export.evaluate_result import Evaluation, SetScores, System

    # The systems' translations of each set, in the order they are compared.
    Outputs = dict[EvaluationSet, list[Output]]

EXAMPLES = examples(
    "lite-export evaluate --data data",
    "lite-export evaluate --set tatoeba=test.tatoebaA.tsv.xz --limit 200 --beam 1",
    "lite-export evaluate --data data --split all --peers data/peers --save hypotheses --json scores.json",
    "lite-export evaluate --model runs/phone/final --set news=news.tsv --system theirs=their-news.txt",
    "lite-export evaluate --model runs/teacher/final --model runs/student/final --data data --beam 4 --beam 1",
)


class Split(StrEnum):
    """Which sets of a data folder."""

    test = "test"
    dev = "dev"
    all = "all"


def evaluate(
    model: Annotated[list[Path] | None, model_option(f"{DEFAULT_MODEL_HELP} May be repeated.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with mt/SOURCE-TARGET/test.*.tsv.xz.", show_default=False)
    ] = None,
    split: Annotated[Split, typer.Option(help="Which sets of --data.")] = Split.test,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=FILE of SOURCE<TAB>TARGET lines. May be repeated.", show_default=False),
    ] = None,
    systems: Annotated[
        list[str] | None,
        typer.Option(
            "--system",
            help="SYSTEM@SET=FILE: recorded translations of another system, one a line; with one set, SYSTEM=FILE."
            " May be repeated.",
            show_default=False,
        ),
    ] = None,
    peers: Annotated[
        Path | None,
        typer.Option(help="Folder of recorded translations, SOURCE-TARGET.SET.SYSTEM.txt[.xz].", show_default=False),
    ] = None,
    beam: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Beam width, 1 for greedy; default: the model's. May be repeated: each is a system.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first pairs of each set.")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples of intervals and tests.")] = 1000,
    batch_size: BatchSize = 32,
    threads: Threads = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Folder for the translations; those already there are not made again.", show_default=False),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for the scores.", show_default=False)] = None,
) -> None:
    """Score models and recorded translations on test sets: sacreBLEU's BLEU and chrF with 95 % intervals.

    Every system is compared with the first model by paired bootstrap resampling. Scores are given raw, and with quotes
    and spaces normalised on both sides.
    """
    if data is None and not sets:
        raise typer.BadParameter("name the test sets: --data DIR or --set NAME=FILE")
    _check_seed()
    from lite_export.cli.evaluate_store import Store
    from lite_export.cli.evaluate_view import print_scores
    from lite_export.evaluate_models import named_models, systems_of
    from lite_export.loading import shipped_model

    # Everything is looked at before the first sentence is translated: a wrong path shows at once.
    if json_file:
        check_output_file(json_file)
    models = named_models(model or [shipped_model()])
    splits = ("test", "dev") if split is Split.all else (split.value,)
    if sets:
        _check_one_direction(list(models.values()))
    chosen = {name: _sets(path, data, splits, sets or [], limit) for name, path in models.items()}
    runs = [(system, name) for name, path in models.items() for system in systems_of(name, path, beam or [None])]
    described = [system for system, _ in runs]
    different = list(dict.fromkeys(one for found in chosen.values() for one in found))
    recorded = _recorded(different, systems or [], peers)
    _check_names(described, recorded)
    store = Store(save, described, different) if save else None

    outputs: Outputs = {}
    for system, name in runs:
        for one, output in _translate(system, models[name], chosen[name], batch_size, threads, store):
            outputs.setdefault(one, []).append(output)
    for one, output in recorded:
        outputs[one].append(output)
    evaluation = _score(described, outputs, resamples)
    print_scores(evaluation)
    if json_file:
        with output_stream(json_file) as stream:
            stream.write(evaluation.model_dump_json(indent=2) + "\n")


def _check_seed() -> None:
    """sacreBLEU reads this variable by itself, and only when everything is translated."""
    seed = os.environ.get("SACREBLEU_SEED", "none")
    if seed.lower() != "none" and not (seed.isascii() and seed.isdecimal()):
        raise InputError(f"SACREBLEU_SEED is {seed!r} in the environment: unset it, or set a whole number or none")


def _check_one_direction(models: Sequence[Path]) -> None:
    from lite_export.evaluate_models import direction_of

    directions = sorted({direction for path in models if (direction := direction_of(path))})
    if len(directions) > 1:
        raise InputError(
            f"a --set has one direction, these models have {' and '.join(directions)}: evaluate them one by one"
        )


def _sets(
    model: Path, data: Path | None, splits: Sequence[str], named: Sequence[str], limit: int | None
) -> list[EvaluationSet]:
    """The sets one model is evaluated on, in its direction."""
    from lite_export.evaluate import find_sets, read_set
    from lite_export.evaluate_models import direction_of
    from lite_export.loading import load_card

    direction = direction_of(model)
    chosen = []
    if data:
        card = load_card(model)
        chosen += find_sets(data, card.source_language, card.target_language, limit, splits)
    for entry in named:
        name, equals, file = entry.partition("=")
        if not (name and equals and file):
            raise InputError(f"--set {entry!r}: write NAME=FILE")
        chosen.append(replace(read_set(Path(file), name, limit), direction=direction))
    names = [one.name for one in chosen]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two sets are called {twice}: give one another name with --set NAME=FILE")
    return chosen


def _recorded(sets: Sequence[EvaluationSet], systems: Sequence[str], peers: Path | None) -> list[Recorded]:
    from lite_export.evaluate_outputs import find_peers, named_output

    return [*(named_output(entry, sets) for entry in systems), *(find_peers(peers, sets) if peers else ())]


def _check_names(described: Sequence[System], recorded: Sequence[Recorded]) -> None:
    taken = {(one.title, system.name) for system in described for one, _ in recorded}
    for one, output in recorded:
        if (one.title, output.system) in taken:
            raise InputError(f"two systems are called {output.system} on {one.title}: rename one file or --system")
        taken.add((one.title, output.system))


def _translate(
    system: System,
    path: Path,
    sets: Sequence[EvaluationSet],
    batch_size: int,
    threads: int | None,
    store: Store | None,
) -> Iterator[tuple[EvaluationSet, Output]]:
    """A model's translations of each set, made now or before."""
    from lite_export.cli.evaluate_store import origin_of
    from lite_export.evaluate import translate_set
    from lite_export.loading import load_translator
    from lite_runtime.quality import score
    from lite_runtime.translator import TranslateOptions

    translator = load_translator(path, threads)
    for data in sets:
        origin = origin_of(system, path, data)
        output = store.find(system, origin, data) if store else None
        how = "reused"
        if output is None:
            with bar(f"{system.name} {data.title}", len(data.sources)) as advance:
                output = translate_set(
                    translator, system.name, data, TranslateOptions(beam=system.beam), batch_size, advance
                )
            if store:
                store.keep(system, origin, data, output)
            how = f"{output.seconds:.0f} s"
        bleu = score(output.hypotheses, data.references)[0].bleu
        print(f"{system.name} on {data.title}: BLEU {bleu:.2f} ({how})", file=sys.stderr)
        yield data, output


def _score(described: Sequence[System], outputs: Outputs, resamples: int) -> Evaluation:
    """Every system's scores on every set, against the first model that translated it."""
    from lite_export.evaluate import score_outputs
    from lite_export.evaluate_result import Evaluation, System

    scores: list[SetScores] = []
    signatures: dict[str, str] = {}
    with stage("resampling") as say:
        for number, (data, found) in enumerate(outputs.items(), 1):
            say(f"resampling {data.title}, set {number} of {len(outputs)}")
            scored, signatures = score_outputs(data, found, resamples)
            scores += scored
    names = {system.name for system in described}
    others = dict.fromkeys(score.system for score in scores if score.system not in names)
    return Evaluation(
        producer=f"lite-export {version('lite-export')}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        signatures=signatures,
        systems=(*described, *(System(name=name, form="recorded") for name in others)),
        scores=tuple(scores),
    )
