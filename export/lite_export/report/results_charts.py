"""The results page's charts: scores, what they cost, and how they were learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import altair as alt

from lite_export.evaluate_result import System
from lite_export.report.drawing import Chart, Rows, colour, data, spec, tips
from lite_export.report.results_inputs import Curve, Results, Scored, Validation, form_of

_CHOSEN = "Upper left is better. Choose the set below the chart; dashed: recorded systems, of unknown cost."
_SAME_WEIGHTS = "BLEU is of the evaluated form of the same weights."


def draw(results: Results) -> list[Chart]:
    """Every chart there is something to draw for."""
    scores = Chart("scores", "BLEU by set", "With 95 % bootstrap intervals. Right is better.", _scores(results.scored))
    return [scores, *_frontiers(results), *_learning(results.curves)]


def _frontiers(results: Results) -> list[Chart]:
    emulated = any(run.emulated for run in results.benches.runs)
    drawn = [
        (
            Chart(
                "mult-adds", "BLEU against Mult-Adds", f"As the paper counts a pair of 30 and 30 tokens. {_CHOSEN}", {}
            ),
            _costs(results, lambda system: _millions(results.mult_adds(system))),
            "million Mult-Adds",
        ),
        (
            Chart("megabytes", "BLEU against size", f"Files of the weights. {_SAME_WEIGHTS} {_CHOSEN}", {}),
            _costs(results, lambda system: _millions(system.bytes)) + _measured_bytes(results),
            "megabytes",
        ),
        (
            Chart("speed", "BLEU against time", f"Median step of a token. {_SAME_WEIGHTS} {_CHOSEN}", {}, emulated),
            _measured_times(results),
            "milliseconds a token",
        ),
    ]
    return [replace(chart, spec=_frontier(results, rows, axis)) for chart, rows, axis in drawn if rows]


def _scores(scored: Sequence[Scored]) -> dict[str, Any]:
    rows = [_row(one) for one in scored]
    names, sets = _names(rows, "system"), _names(rows, "set")
    base = alt.Chart(data(rows)).encode(
        y=alt.Y("set:N", title=None, sort=sets, axis=alt.Axis(labelLimit=130)),
        yOffset=alt.YOffset("system:N", sort=names),
        color=colour(names, "system"),
        tooltip=tips(rows),
    )
    x = alt.X("BLEU:Q", scale=alt.Scale(zero=False, padding=12))
    intervals = base.mark_rule(strokeWidth=2, opacity=0.6).encode(x=alt.X("low:Q", title="BLEU"), x2="high:Q")
    return spec(
        intervals + base.mark_point(filled=True, size=60, opacity=1).encode(x=x), _height(len(sets), len(names))
    )


def _height(sets: int, systems: int) -> int:
    return 40 + sets * max(24, 14 * systems)


def _row(one: Scored) -> dict[str, Any]:
    bleu = one.scores.raw.bleu
    return {"set": one.set_title, "system": one.name, "BLEU": bleu.value, "low": bleu.low, "high": bleu.high}


def _millions(count: int | None) -> float | None:
    return None if count is None else count / 1e6


def _costs(results: Results, cost: Callable[[System], float | None]) -> Rows:
    """Evaluated systems whose cost is known, on every set."""
    return [
        {**_row(one), "kind": one.system.architecture or "exported", "cost": known}
        for one in results.scored
        if (known := cost(one.system)) is not None
    ]


def _measured_times(results: Results) -> Rows:
    """Measured candidates whose model was evaluated."""
    return [
        {**_row(one), "system": series.name, "kind": "measured", "cost": series.summary.per_token.p50.value}
        for series in results.benches.series()
        for one in results.quality(series)
    ]


def _measured_bytes(results: Results) -> Rows:
    """Files that were measured, and whose model was evaluated, but not they themselves."""
    return [
        {**_row(one), "system": series.name, "kind": "measured", "cost": series.candidate.bytes / 1e6}
        for series in results.benches.series()
        for one in results.quality(series)
        if one.system.form != form_of(series)
    ]


def _frontier(results: Results, rows: Rows, title: str) -> dict[str, Any]:
    """BLEU against a cost, on a set that is chosen on the page."""
    recorded = [_row(one) for one in results.scored if one.system.form == "recorded"]
    names, sets = _names(rows, "system"), _names(rows, "set")
    most = max(sets, key=lambda name: sum(row["set"] == name for row in rows + recorded))
    chosen = alt.param("chosen", value=most, bind=alt.binding_select(options=sets, name="set: "))
    x = alt.X("cost:Q", title=title, scale=alt.Scale(domain=[0, 1.2 * max(row["cost"] for row in rows)]))
    y = alt.Y("BLEU:Q", scale=alt.Scale(zero=False, padding=14))
    base = alt.Chart(data(rows)).transform_filter("datum.set == chosen").encode(x=x, tooltip=tips(rows))
    # Models of one architecture differ by their size: a line shows what size buys.
    lines = base.mark_line(strokeWidth=1, opacity=0.5, color="gray").encode(y=y, detail="kind:N")
    intervals = base.mark_rule(strokeWidth=2, opacity=0.6).encode(
        y=alt.Y("low:Q", title="BLEU"), y2="high:Q", color=colour(names, "system")
    )
    points = base.mark_point(filled=True, size=110, opacity=1).encode(
        y=y, color=colour(names, "system"), shape=alt.Shape("kind:N", legend=alt.Legend(title=None, orient="bottom"))
    )
    layers = [lines, intervals, points, *_levels(recorded)]
    return spec(alt.layer(*layers).add_params(chosen), 280)


def _levels(recorded: Rows) -> list[alt.Chart]:
    """Lines at what recorded systems scored; names side by side, as the lines are often close together."""
    if not recorded:
        return []
    base = alt.Chart(data(recorded)).transform_filter("datum.set == chosen").encode(y="BLEU:Q", tooltip=tips(recorded))
    layers = [base.mark_rule(strokeDash=[4, 3], opacity=0.6)]
    for number, name in enumerate(_names(recorded, "system")):
        text = base.transform_filter(alt.FieldEqualPredicate(field="system", equal=name)).mark_text(
            align="left", dy=-6, fontSize=11, limit=150
        )
        layers.append(text.encode(x=alt.value(4 + 155 * number), text="system:N"))
    return layers


def _learning(curves: Sequence[Curve]) -> list[Chart]:
    perplexity = _curve(curves, "perplexity", lambda point: point.perplexity, alt.Scale(type="log", nice=False))
    bleu = _curve(curves, "BLEU", lambda point: point.bleu, alt.Scale())
    drawn = [
        ("perplexity", "Validation perplexity", "On the run's development set. Lower is better.", perplexity),
        ("validation-bleu", "Validation BLEU", "Greedy, on the run's development set. Higher is better.", bleu),
    ]
    return [Chart(name, title, text, found) for name, title, text, found in drawn if found]


def _curve(
    curves: Sequence[Curve], title: str, measure: Callable[[Validation], float | None], scale: alt.Scale
) -> dict[str, Any] | None:
    rows: Rows = [
        {"run": curve.name, "update": point.step, "value": value}
        for curve in curves
        for point in curve.points
        if (value := measure(point)) is not None
    ]
    if not rows:
        return None
    chart = (
        alt.Chart(data(rows))
        .mark_line(strokeWidth=2, point=True)
        .encode(
            x=alt.X("update:Q", title="updates"),
            y=alt.Y("value:Q", title=title, scale=scale),
            color=colour(_names(rows, "run"), "run"),
            tooltip=tips(rows),
        )
    )
    return spec(chart, 260)


def _names(rows: Rows, column: str) -> list[str]:
    """A column's values in order, each once."""
    return list(dict.fromkeys(row[column] for row in rows))
