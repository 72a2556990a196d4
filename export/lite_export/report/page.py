"""The latency report: devices, figures, charts, comparisons and parity on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lite_export.report.charts import Comparison, draw, verdict
from lite_export.report.inputs import Inputs, Run, Series
from lite_export.report.rendering import render_page
from lite_runtime.bench_result import BenchError, Ratio
from lite_runtime.bench_summary import check_comparable, compare_stored


@dataclass(frozen=True)
class Difference:
    """Two runs, one after the other, and what is comparable of them; else why nothing is."""

    before: Run
    after: Run
    ratios: tuple[Ratio, ...]
    reason: str | None = None


def render(inputs: Inputs) -> str:
    """The page.

    Raises:
        ReportError: altair is of a version whose charts vl-convert cannot draw.
    """
    series = inputs.series()
    differences = [_difference(before, after) for before, after in pairwise(inputs.runs)]
    charts = draw(inputs, _comparisons(inputs, differences))
    return render_page(
        "latency.html",
        charts,
        runs=inputs.runs,
        series=series,
        charged=any(one.summary.charge_per_1000_tokens is not None for one in series),
        bleu={one.name: inputs.bleu(one) for one in series},
        notes=_notes(inputs, series),
        parities=inputs.parities,
        differences=differences,
        facts=_facts,
        conditions=_conditions,
        verdict=verdict,
    )


def _difference(before: Run, after: Run) -> Difference:
    try:
        check_comparable(after.result.device, after.result.protocol, before.result)
        return Difference(before, after, compare_stored(after.result, before.result, None))
    except BenchError as error:
        return Difference(before, after, (), str(error))


def _comparisons(inputs: Inputs, differences: Sequence[Difference]) -> list[Comparison]:
    several = len(inputs.runs) > 1
    own = [
        Comparison(f"{ratio.candidate} / {ratio.against}" + (f", {run.label}" if several else ""), ratio)
        for run in inputs.runs
        for ratio in run.result.ratios
    ]
    stored = [
        Comparison(f"{ratio.candidate}: {difference.after.label} / {difference.before.label}", ratio)
        for difference in differences
        for ratio in difference.ratios
    ]
    return own + stored


def _notes(inputs: Inputs, series: Sequence[Series]) -> list[str]:
    """What must be said of the figures; what is said of several is said once."""
    said: dict[str, list[str]] = {}
    for one in series:
        bleu = inputs.bleu(one)
        for note in (*one.summary.notes, *([f"BLEU is of {bleu[1]}"] if bleu else [])):
            said.setdefault(note, []).append(one.name)
    return [note if len(names) == len(series) > 1 else f"{', '.join(names)}: {note}" for note, names in said.items()]


def _facts(run: Run) -> dict[str, str]:
    """The device's card: what it tells of itself."""
    device = run.result.device
    facts: dict[str, Any] = {
        "model": device.model,
        "processor": device.soc,
        "ABI": device.abi,
        "system": device.system,
        "cores": device.cores,
        "memory": None if device.memory is None else f"{device.memory / 1e9:.1f} GB",
        "governor": device.governor,
        "runtimes": ", ".join(sorted({block.runtime for block in run.result.blocks})),
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


def _conditions(run: Run) -> dict[str, str]:
    """How it fared, from the first block to the last."""
    seen = [condition for block in run.result.blocks for condition in (block.before, block.after)]
    units = {"temperature": "°C", "battery": "%", "thermal_status": ""}
    found = {}
    for name, unit in units.items():
        values = [value for condition in seen if (value := getattr(condition, name)) is not None]
        if values:
            low, high = min(values), max(values)
            found[name.replace("_", " ")] = (
                f"{low:g}" if low == high else f"{low:g} to {high:g}"
            ) + f" {unit}".rstrip()
    charging = {condition.charging for condition in seen} - {None}
    if charging:
        found["charger"] = "yes" if charging == {True} else "no" if charging == {False} else "part of the time"
    return found
