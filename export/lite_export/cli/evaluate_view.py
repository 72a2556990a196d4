"""How an evaluation is shown: a table a set, and what its marks mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lite_export.cli.console import table_console

if TYPE_CHECKING:
    from rich.table import Table

    from lite_export.evaluate_result import Evaluation, SetScores
    from lite_runtime.quality import CorpusScore

_MARKS = {"better": "▲", "worse": "▼", "no difference": "="}


def print_scores(evaluation: Evaluation) -> None:
    """Print the tables, sacreBLEU's signatures, and notes."""
    console = table_console()
    for title, scores in evaluation.by_set().items():
        console.print(_table(title, scores, max(len(system.name) for system in evaluation.systems)))
    for name, signature in evaluation.signatures.items():
        console.print(f"{name}: {signature}", soft_wrap=True)
    for note in notes(evaluation):
        console.print(note, soft_wrap=True)


def notes(evaluation: Evaluation) -> list[str]:
    """What must be said of the figures."""
    said = [
        "±: 95 % bootstrap interval; norm.: straight quotes and plain spaces on both sides; sentences/s informational"
    ]
    if any(scores.against for scores in evaluation.scores):
        said.append("p: paired bootstrap against the first system of a table; ▲ better, ▼ worse at p < 0.05, = neither")
    said += [
        f"{scores.system} on {scores.title}: {scores.empty} of {scores.sentences} translations are empty"
        for scores in evaluation.scores
        if scores.empty
    ]
    return said


def _table(title: str, scores: list[SetScores], width: int) -> Table:
    from rich.table import Table

    table = Table(title=f"{title}, {scores[0].sentences} sentences", title_justify="left")
    table.add_column("system", min_width=width)
    for column in ("BLEU", "p", "chrF", "p", "BLEU norm.", "p", "sentences/s"):
        table.add_column(column, justify="right")
    for one in scores:
        pairs = (one.raw.bleu, one.raw.chrf, one.normalised.bleu)
        speed = one.sentences_per_second
        cells = [cell for score in pairs for cell in _cells(score)]
        table.add_row(one.system, *cells, "" if speed is None else f"{speed:.1f}")
    return table


def _cells(score: CorpusScore) -> tuple[str, str]:
    """The score with half its interval's width, and the p-value with its mark."""
    value = f"{score.value:.2f} ± {(score.high - score.low) / 2:.2f}"
    return value, "" if score.verdict is None else f"{_MARKS[score.verdict]} {score.p_value:.3f}"
