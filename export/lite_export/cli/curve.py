"""The training curve as a picture, where the ``report`` extra is installed."""

from __future__ import annotations

import json
from pathlib import Path

from lite_transformer.files import staged_file

_MEASURES = {"perplexity": "validation perplexity", "bleu": "validation BLEU"}


def draw_curve(log: Path, output: Path) -> None:
    """Draw a run's ``log.jsonl`` (one validation a line) as an SVG, staged and then renamed.

    Raises:
        ModuleNotFoundError: altair or vl-convert is not installed.
        OSError: the log cannot be read, or the picture not be written.
    """
    import altair
    import vl_convert

    entries = [json.loads(line) for line in log.read_text("utf8").splitlines()]
    panels = []
    for measure, title in _MEASURES.items():
        points = [{"update": e["step"], measure: e[measure]} for e in entries if measure in e]
        if points:
            scale = altair.Scale(type="log", nice=False) if measure == "perplexity" else altair.Scale()
            panel = altair.Chart(altair.Data(values=points)).mark_line(point=True)
            y = altair.Y(measure, type="quantitative", title=title, scale=scale)
            panels.append(panel.encode(altair.X("update", type="quantitative"), y).properties(width=560, height=220))
    with staged_file(output) as staging:
        staging.write_text(vl_convert.vegalite_to_svg(altair.vconcat(*panels).to_json()), "utf8")
