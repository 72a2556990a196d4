"""The results page: what every system scored on every set, what it cost, and how it was learnt."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from lite_export.report.rendering import render_page
from lite_export.report.results_charts import draw
from lite_export.report.results_inputs import Results, Scored
from lite_runtime.quality import CorpusScore

_LOOKS = {"better": ("good", "▲"), "worse": ("bad", "▼"), "no difference": ("soft", "=")}


def render(results: Results) -> str:
    """The page.

    Raises:
        ReportError: altair is of a version whose charts vl-convert cannot draw.
    """
    return render_page(
        "results.html",
        draw(results),
        sets=results.sets(),
        systems=results.systems(),
        mult_adds=results.mult_adds,
        difference=_difference,
        baselines=_baselines,
        producers=sorted({evaluation.producer for evaluation in results.evaluations}),
        created=max(evaluation.created for evaluation in results.evaluations),
        signatures=sorted({s for evaluation in results.evaluations for s in evaluation.signatures.values()}),
    )


def _baselines(rows: Sequence[Scored]) -> list[str]:
    """What systems of a set were compared with; several where evaluations are joined."""
    return list(dict.fromkeys(row.against for row in rows if row.against))


def _difference(score: CorpusScore) -> Markup:
    """The difference to the first system, with its mark and p-value."""
    if score.verdict is None:
        return Markup("")
    look, mark = _LOOKS[score.verdict]
    return Markup('<span class="{} whole">{} {:+.2f}</span> <span class="interval">p {:.3f}</span>').format(
        look, mark, score.difference, score.p_value
    )
