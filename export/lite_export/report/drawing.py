"""What every chart is made with: Vega-Lite specifications that hold their data. Colours and fonts are the page's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import altair as alt

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Chart:
    """A chart with its name on the page, heading and explanation."""

    name: str
    title: str
    text: str
    spec: dict[str, Any]
    emulated: bool = False


def data(rows: Rows) -> alt.Data:
    """Rows as a chart's own data."""
    return alt.Data(values=rows)


def tips(rows: Rows) -> list[alt.Tooltip]:
    """All that a row holds."""
    numbers = (int, float)
    return [
        alt.Tooltip(f"{name}:Q", format=".4~g") if isinstance(value, numbers) else alt.Tooltip(f"{name}:N")
        for name, value in rows[0].items()
    ]


def colour(names: Iterable[str], column: str = "series") -> alt.Color:
    """A colour for each name, in this order, and a legend above the chart that has room for long ones."""
    legend = alt.Legend(
        title=None, orient="top", direction="vertical", labelLimit=600, columns=1, symbolOpacity=1, symbolSize=80
    )
    return alt.Color(f"{column}:N", sort=list(names), legend=legend)


def spec(chart: alt.Chart | alt.LayerChart | alt.FacetChart, height: int) -> dict[str, Any]:
    """As JSON, as wide as its place; without the theme and the address of the schema."""
    drawn = chart.properties(width="container", height=height, background="transparent").to_dict()
    return {name: value for name, value in drawn.items() if name not in ("$schema", "config")}
