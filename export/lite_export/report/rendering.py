"""One HTML file that needs nothing else: what a page says, its charts, and the code that draws them.

The page forbids itself every request (its Content-Security-Policy), so it shows the same on a plane.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import altair
import jinja2
import vl_convert
from markupsafe import Markup

from lite_export.report.drawing import Chart
from lite_export.report.errors import ReportError


@runtime_checkable
class Interval(Protocol):
    """A figure and its interval."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def render_page(template: str, charts: Sequence[Chart], **content: Any) -> str:
    """A page of one of this package's templates, which all extend ``base.html``.

    Args:
        content: what else the template speaks of.

    Raises:
        ReportError: altair is of a version whose charts vl-convert cannot draw.
    """
    loader = jinja2.PackageLoader("lite_export", "report")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(interval=_interval, when=_when)
    return environment.get_template(template).render(
        charts=charts,
        specs={chart.name: _script_json(chart.spec) for chart in charts},
        vega=_vega() if charts else "",
        **content,
    )


def _interval(figure: Interval, digits: int = 2) -> Markup:
    value, low, high = (f"{number:.{digits}f}" for number in (figure.value, figure.low, figure.high))
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
