"""What a report is made of: results of ``bench`` and of ``parity --json``, told apart by what they hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from lite_export.report.errors import ReportError
from lite_runtime.bench_result import BenchResult, Block, Candidate, Summary, blocks_of, read_result
from lite_runtime.ladder import FormatParity, ParityReport

_BLEU = re.compile(r"BLEU (\d+\.\d+)")


@dataclass(frozen=True)
class Run:
    """One result of ``bench``, under a name to show."""

    label: str
    result: BenchResult

    @property
    def emulated(self) -> bool:
        return self.result.device.emulated is not None


@dataclass(frozen=True)
class Series:
    """One candidate of one run: what charts draw as one line."""

    name: str
    run: Run
    candidate: Candidate
    summary: Summary
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Inputs:
    """Everything read."""

    runs: tuple[Run, ...]
    parities: tuple[ParityReport, ...]

    def series(self) -> tuple[Series, ...]:
        """Every candidate of every run, under names that differ, and as short as that allows."""
        found = [(run, candidate) for run in self.runs for candidate in run.result.candidates]
        bundles = {candidate.bundle for _, candidate in found}
        return tuple(self._one(run, candidate, len(bundles) > 1) for run, candidate in found)

    def _one(self, run: Run, candidate: Candidate, many: bool) -> Series:
        name = candidate.name if many else candidate.form
        if len(self.runs) > 1:
            name += f" on {run.label}"
        if run.emulated:
            name += " (emulated)"
        summary = next(s for s in run.result.summaries if s.candidate == candidate.name)
        return Series(name, run, candidate, summary, tuple(blocks_of(run.result.blocks, candidate.name)))

    def bleu(self, series: Series) -> tuple[float, str] | None:
        """BLEU of a candidate and on what: of the exported file where parity measured it, else of its model's card."""
        bundle = next(b for b in series.run.result.bundles if b.label == series.candidate.bundle)
        for report in self.parities:
            for entry in report.formats if report.model_id == bundle.model_id else ():
                if _form(entry) == _form(series.candidate) and (measured := _bleu(entry)) is not None:
                    return measured, "this file, test set of parity"
        name = next((name for name in bundle.scores if "BLEU" in name), None)
        return None if name is None else (bundle.scores[name], f"the model, {name.replace('BLEU', '').strip()}")


def _form(entry: FormatParity | Candidate) -> tuple[str, str, str]:
    return entry.format, entry.precision, entry.cache


def _bleu(entry: FormatParity) -> float | None:
    rung = next((rung for rung in entry.rungs if rung.name == "bleu"), None)
    found = _BLEU.search(rung.at) if rung else None
    return float(found[1]) if found else None


def read_inputs(paths: Sequence[Path]) -> Inputs:
    """Read results of any kind, in the order given.

    Raises:
        ReportError: a file is no result.
        BenchError: a result of bench is damaged or of another version.
    """
    results: list[tuple[Path, BenchResult]] = []
    parities: list[ParityReport] = []
    for path in paths:
        content = _read(path)
        if isinstance(content, dict) and content.get("kind") == "bench":
            results.append((path, read_result(path)))
        elif isinstance(content, dict) and {"formats", "reference"} <= content.keys():
            parities.append(_parity(path, content))
        else:
            raise ReportError(f"{path} is neither a result of lite-export bench nor of lite-export parity --json")
    return Inputs(tuple(_labelled(results)), tuple(parities))


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text("utf8"))
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path} is no JSON: {error}") from None


def _parity(path: Path, content: object) -> ParityReport:
    try:
        return ParityReport.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ReportError(f"{path} is a damaged report of parity: {where}: {first['msg']}") from None


def _labelled(results: Sequence[tuple[Path, BenchResult]]) -> Iterator[Run]:
    """Runs by their device's name, where these differ; else by their file's; numbered where even those are equal."""
    devices = [result.device.name for _, result in results]
    names = devices if len(set(devices)) == len(devices) else [path.stem for path, _ in results]
    for number, (name, (_, result)) in enumerate(zip(names, results, strict=True), 1):
        yield Run(name if names.count(name) == 1 else f"{name} #{number}", result)
