"""What a results page is made of: evaluations, the logs of training runs, and measurements of latency."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from lite_export.evaluate_result import Evaluation, SetScores, System, read_evaluation
from lite_export.report.errors import ReportError
from lite_export.report.inputs import Inputs, Series, read_inputs

_LOG = "log.jsonl"


@dataclass(frozen=True)
class Scored:
    """A system on a set, under names that are unique on the page, and the name of what it was compared with."""

    name: str
    set_title: str
    system: System
    scores: SetScores
    against: str | None


class Validation(BaseModel):
    """One line of a training run's log, as far as a curve needs it."""

    step: int
    perplexity: float | None = None
    bleu: float | None = None


@dataclass(frozen=True)
class Curve:
    """A training run's validations, in order."""

    name: str
    points: tuple[Validation, ...]


@dataclass(frozen=True)
class Results:
    """Everything read."""

    evaluations: tuple[Evaluation, ...]
    scored: tuple[Scored, ...]
    curves: tuple[Curve, ...]
    benches: Inputs

    def sets(self) -> dict[str, list[Scored]]:
        """What was scored on each set."""
        found: dict[str, list[Scored]] = {}
        for one in self.scored:
            found.setdefault(one.set_title, []).append(one)
        return found

    def systems(self) -> dict[str, System]:
        """Systems by their names on the page."""
        return {one.name: one.system for one in self.scored}

    def mult_adds(self, system: System) -> int | None:
        """A system's Mult-Adds; a bundle's are those of a system with the same weights."""
        same = [one.system for one in self.scored if one.system.weights_sha256 == system.weights_sha256 is not None]
        return next((known.mult_adds for known in (system, *same) if known.mult_adds), None)

    def quality(self, series: Series) -> list[Scored]:
        """What a measured candidate scored: its very file where that was evaluated, else any of the same weights."""
        sha256 = next(b for b in series.run.result.bundles if b.label == series.candidate.bundle).weights_sha256
        same = [one for one in self.scored if one.system.weights_sha256 == sha256]
        exact = [one for one in same if one.system.form == form_of(series)]
        first = next(iter(exact or same), None)
        return [one for one in same if first and one.name == first.name]


def form_of(series: Series) -> str:
    """A measured candidate's form, as an evaluation names it."""
    candidate = series.candidate
    cache = "" if candidate.cache == "explicit" else f" {candidate.cache}"
    return f"{candidate.format} {candidate.precision}{cache}"


def read_results(evaluations: Sequence[Path], curves: Sequence[Path] = (), benches: Sequence[Path] = ()) -> Results:
    """Read everything, in the order given.

    Raises:
        ReportError: a log or a measurement cannot be used.
        EvaluationError: an evaluation is none, damaged, or of another version.
        BenchError: a result of bench is damaged or of another version.
    """
    read = [(path, read_evaluation(path)) for path in evaluations]
    measured = read_inputs(benches)
    if measured.parities:
        raise ReportError("--bench takes results of lite-export bench, and one of these is of lite-export parity")
    logs = [_log_path(path) for path in curves]
    names = _unique([(path.parent.name, str(path)) for path in logs])
    return Results(
        evaluations=tuple(evaluation for _, evaluation in read),
        scored=tuple(_scored(read)),
        curves=tuple(Curve(name, read_log(path)) for name, path in zip(names, logs, strict=True)),
        benches=measured,
    )


def read_log(path: Path) -> tuple[Validation, ...]:
    """A training run's ``log.jsonl``; a last line without its end is still being written, and left out.

    Raises:
        ReportError: it has no validations, or a line is none.
    """
    try:
        lines = path.read_text("utf8").split("\n")[:-1]
    except UnicodeDecodeError:
        raise ReportError(f"{path} is not UTF-8 text: name a training run's {_LOG}") from None
    try:
        points = tuple(Validation.model_validate_json(line) for line in lines)
    except ValidationError as error:
        raise ReportError(f"{path} is no log of lite-export train: {error.errors()[0]['msg']}") from None
    if not points:
        raise ReportError(f"{path} has no validation yet: wait for the run's first one")
    return points


def _log_path(path: Path) -> Path:
    return (path / _LOG if path.is_dir() else path).resolve()


def _scored(read: Sequence[tuple[Path, Evaluation]]) -> Iterable[Scored]:
    """Every score once: what two evaluations have in common (peers, mostly) is shown as the first has it."""
    systems = _names_of((system.name, path.stem, _identity(system)) for path, e in read for system in e.systems)
    sets = _names_of((s.title, f"{s.sentences} sentences", s.set_sha256) for _, e in read for s in e.scores)
    seen = set()
    for _, evaluation in read:
        by_name = {system.name: system for system in evaluation.systems}
        names = {name: systems[name, _identity(system)] for name, system in by_name.items()}
        for scores in evaluation.scores:
            name, title = names[scores.system], sets[scores.title, scores.set_sha256]
            mark = name, title, scores.raw.bleu.value, scores.raw.chrf.value
            if mark not in seen:
                seen.add(mark)
                against = names[scores.against] if scores.against else None
                yield Scored(name, title, by_name[scores.system], scores, against)


def _identity(system: System) -> str:
    """What tells systems of one name apart."""
    return f"{system.weights_sha256} {system.form} {system.beam}"


def _names_of(entries: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str], str]:
    """Names by (name, identity), from (name, addition, identity); the addition only where identities differ."""
    first: dict[tuple[str, str], tuple[str, str]] = {}
    for name, addition, identity in entries:
        first.setdefault((name, identity), (name, addition))
    return dict(zip(first, _unique(list(first.values())), strict=True))


def _unique(names: Sequence[tuple[str, str]]) -> list[str]:
    """Names with their additions where they are not the only ones, numbered where even that is not enough."""
    plain = [name for name, _ in names]
    longer = [name if plain.count(name) == 1 else f"{name}, {addition}" for name, addition in names]
    return [
        name if longer.count(name) == 1 else f"{name} #{longer[: number + 1].count(name)}"
        for number, name in enumerate(longer)
    ]
