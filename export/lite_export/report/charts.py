"""The latency report's charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from lite_export.report.drawing import Chart, Rows, colour, data, spec, tips
from lite_export.report.inputs import Inputs, Series
from lite_runtime.bench_result import Ratio
from lite_runtime.bench_summary import later_steps

_ECDF_POINTS = 80


@dataclass(frozen=True)
class Comparison:
    """A ratio under the names of its series."""

    label: str
    ratio: Ratio


def draw(inputs: Inputs, comparisons: Sequence[Comparison]) -> list[Chart]:
    """Every chart there is something to draw for."""
    series = inputs.series()
    if not series:
        return []
    emulated = any(one.run.emulated for one in series)
    charts = [
        Chart(
            "latency",
            "Time per token",
            "Median (large), p90 and p99 with their intervals. Left is faster.",
            _latency(series),
            emulated,
        ),
        Chart(
            "distribution",
            "How times are distributed",
            "Share of tokens that took at most so long. A steep line is a steady one.",
            _distribution(series),
            emulated,
        ),
        Chart(
            "position",
            "Time against position",
            "Median at each place in the sentence, and down to the quickest tenth. The first is its step only.",
            _position(series),
            emulated,
        ),
        Chart(
            "frontier",
            "Size, speed, quality",
            "Lower left is better. Filled: no other is smaller, faster and better at once.",
            _frontier(inputs, series),
            emulated,
        ),
        Chart(
            "repeatability",
            "Block by block",
            "Median step of each block, in the order they ran. What drifts or jumps was disturbed, or hot.",
            _repeatability(series),
            emulated,
        ),
    ]
    if comparisons:
        charts.append(
            Chart(
                "ratios",
                "Comparisons",
                "Ours over theirs with its interval; right of 1 is slower. An interval across 1 shows no difference.",
                _ratios(comparisons),
                emulated,
            )
        )
    return charts


def _latency(series: Sequence[Series]) -> dict[str, Any]:
    rows: Rows = []
    for one in series:
        for name, estimate in one.summary.per_token:
            rows.append({"series": one.name, "percentile": name, **estimate.model_dump()})
    x = alt.X("value:Q", title="milliseconds", scale=alt.Scale(type="log", nice=False, padding=12))
    base = alt.Chart(data(rows)).encode(y=_rows_axis(series), color=_colour(series), tooltip=tips(rows))
    points = base.mark_point(filled=True, opacity=1).encode(
        x=x,
        size=alt.Size("percentile:N", legend=None, scale=alt.Scale(domain=["p50", "p90", "p99"], range=[130, 60, 30])),
    )
    intervals = base.mark_rule(strokeWidth=2, opacity=0.6).encode(x=alt.X("low:Q", title="milliseconds"), x2="high:Q")
    return spec(intervals + points, 22 * len(series) + 20)


def _distribution(series: Sequence[Series]) -> dict[str, Any]:
    shares = np.linspace(0, 0.999, _ECDF_POINTS)
    rows: Rows = []
    for one in series:
        times = np.quantile(later_steps(one.blocks), shares)
        rows += [
            {"series": one.name, "share": round(float(s), 4), "ms": round(float(t), 4)}
            for s, t in zip(shares, times, strict=True)
        ]
    chart = (
        alt.Chart(data(rows))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("ms:Q", title="milliseconds a token", scale=alt.Scale(type="log", nice=False)),
            y=alt.Y("share:Q", title="share of tokens", axis=alt.Axis(format="%")),
            color=_colour(series),
            tooltip=tips(rows),
        )
    )
    return spec(chart, 260)


def _position(series: Sequence[Series]) -> dict[str, Any]:
    rows: Rows = []
    for one in series:
        steps = np.array([block.steps for block in one.blocks])
        times = np.percentile(steps.reshape(-1, steps.shape[2]), (10, 50), axis=0).round(4)
        rows += [
            {"series": one.name, "position": place, "ms": float(middle), "quickest tenth": float(low)}
            for place, (low, middle) in enumerate(times.T, 1)
        ]
    base = alt.Chart(data(rows)).encode(x=alt.X("position:Q", title="token"), color=_colour(series), tooltip=tips(rows))
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("ms:Q", title="milliseconds"), y2="quickest tenth:Q")
    return spec(band + base.mark_line(strokeWidth=2).encode(y="ms:Q"), 260)


def _frontier(inputs: Inputs, series: Sequence[Series]) -> dict[str, Any]:
    rows: Rows = []
    for one in series:
        bleu = inputs.bleu(one)
        rows.append(
            {
                "series": one.name,
                "ms": one.summary.per_token.p50.value,
                "MB": one.candidate.bytes / 1e6,
                "BLEU": bleu[0] if bleu else None,
                "of": bleu[1] if bleu else "not measured",
            }
        )
    for row in rows:
        row["best"] = not any(_beats(other, row) for other in rows)
        row["label"] = f"BLEU {row['BLEU']:.1f}" if row["best"] and row["BLEU"] is not None else ""
    base = alt.Chart(data(rows)).encode(
        # Room above and beside the last point for its label.
        x=alt.X("ms:Q", title="milliseconds a token", scale=alt.Scale(domain=[0, 1.2 * max(r["ms"] for r in rows)])),
        y=alt.Y("MB:Q", title="megabytes", scale=alt.Scale(domain=[0, 1.2 * max(r["MB"] for r in rows)])),
        color=_colour(series),
        tooltip=tips(rows),
    )
    points = base.mark_point(size=140, strokeWidth=2, opacity=1).encode(
        fill=alt.condition(
            "datum.best", alt.Fill("series:N", sort=[one.name for one in series], legend=None), alt.value("transparent")
        )
    )
    return spec(points + base.mark_text(dy=-14, fontSize=11).encode(text="label:N"), 260)


def _beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Nowhere worse and somewhere better; what has no BLEU is not compared by it."""
    pairs = [(one["ms"], other["ms"]), (one["MB"], other["MB"])]
    if one["BLEU"] is not None and other["BLEU"] is not None:
        pairs.append((-one["BLEU"], -other["BLEU"]))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _repeatability(series: Sequence[Series]) -> dict[str, Any]:
    rows: Rows = [
        {"series": one.name, "block": block.round + 1, "ms": round(float(np.median(later_steps([block]))), 4)}
        for one in series
        for block in one.blocks
    ]
    chart = (
        alt.Chart(data(rows))
        .mark_line(point=True, strokeWidth=1)
        .encode(
            x=alt.X("block:Q", title="round", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("ms:Q", title="milliseconds a token", scale=alt.Scale(zero=True)),
            color=_colour(series),
            tooltip=tips(rows),
        )
    )
    return spec(chart, 220)


def _ratios(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    names = {"encode": "encode", "per_token": "token"}
    rows: Rows = [
        {
            "comparison": f"{one.label}: {names[one.ratio.metric]}",
            "ratio": one.ratio.estimate.value,
            "low": one.ratio.estimate.low,
            "high": one.ratio.estimate.high,
            "verdict": verdict(one.ratio),
        }
        for one in comparisons
    ]
    labels = list(dict.fromkeys(row["comparison"] for row in rows))
    # Names are long: written above their interval, as a phone is narrow.
    base = alt.Chart(data(rows)).encode(
        y=alt.Y("comparison:N", axis=None, sort=labels, scale=alt.Scale(paddingInner=0.6)), tooltip=tips(rows)
    )
    colour = alt.Color(
        "verdict:N",
        legend=None,
        scale=alt.Scale(domain=["slower", "faster", "no difference"], range=["#d1495b", "#2a9d6f", "#8a8f98"]),
    )
    intervals = base.mark_rule(strokeWidth=3, opacity=0.7).encode(
        x=alt.X("low:Q", title="ratio", scale=alt.Scale(zero=False)), x2="high:Q", color=colour
    )
    points = base.mark_point(filled=True, size=90, opacity=1).encode(x="ratio:Q", color=colour)
    names_above = base.mark_text(align="left", dy=-15, fontSize=11, limit=600).encode(
        x=alt.value(2), text="comparison:N"
    )
    one = alt.Chart(data([{"x": 1}])).mark_rule(strokeDash=[4, 3], opacity=0.6).encode(x="x:Q")
    return spec(one + intervals + points + names_above, 44 * len(labels) + 24)


def verdict(ratio: Ratio) -> str:
    """What an interval says."""
    if ratio.estimate.low > 1:
        return "slower"
    return "faster" if ratio.estimate.high < 1 else "no difference"


def _colour(series: Iterable[Series]) -> alt.Color:
    return colour(one.name for one in series)


def _rows_axis(series: Iterable[Series]) -> alt.Y:
    # The legend has the names: an axis of long names would leave no room on a phone.
    return alt.Y("series:N", axis=None, sort=[one.name for one in series])
