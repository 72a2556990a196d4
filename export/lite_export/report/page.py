"""One HTML file that needs nothing else: figures, charts, and the code that draws them.

The page forbids itself every request (its Content-Security-Policy), so it shows the same on a plane.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from itertools import pairwise
from typing import Any

import altair
import jinja2
import vl_convert
from markupsafe import Markup

from lite_export.report.charts import Comparison, draw, verdict
from lite_export.report.inputs import Inputs, ReportError, Run, Series
from lite_runtime.bench_result import BenchError, Ratio
from lite_runtime.bench_summary import check_comparable, compare_stored
from lite_runtime.latency_statistics import Estimate


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
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(interval=_interval, when=_when, verdict=verdict)
    template = environment.from_string(files(__package__).joinpath("template.html").read_text("utf8"))
    return template.render(
        runs=inputs.runs,
        series=series,
        charged=any(one.summary.charge_per_1000_tokens is not None for one in series),
        bleu={one.name: inputs.bleu(one) for one in series},
        notes=_notes(inputs, series),
        parities=inputs.parities,
        differences=differences,
        charts=charts,
        specs={chart.name: _script_json(chart.spec) for chart in charts},
        vega=_vega() if charts else "",
        facts=_facts,
        conditions=_conditions,
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


def _interval(estimate: Estimate, digits: int = 2) -> Markup:
    """A figure with its interval."""
    value, low, high = (f"{number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
    return Markup('{} <span class="interval">{}–{}</span>').format(value, low, high)


def _when(text: str) -> str:
    return datetime.fromisoformat(text).strftime("%d %B %Y, %H:%M UTC")


def _script_json(spec: dict[str, Any]) -> Markup:
    # Inside a script element nothing is escaped, so what could end it must not occur.
    return Markup(json.dumps(spec, separators=(",", ":")).replace("<", "\\u003c"))


def _vega() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script that loads nothing."""
    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    if version not in vl_convert.get_vegalite_versions():
        raise ReportError(
            f"altair {altair.__version__} writes Vega-Lite {version}, which the installed vl-convert cannot draw:"
            " pip install --upgrade 'lite-export[report]'"
        )
    # Without a snippet it is the libraries themselves; the package's own stub does not know.
    bundle = vl_convert.javascript_bundle(vl_version=version)  # type: ignore[call-arg]
    return Markup(bundle.replace("</script", "<\\/script"))
