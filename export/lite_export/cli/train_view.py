"""How a training run is shown: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich.markup import escape

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Metrics = dict[str, Any]
_SMOOTH = 50


class View(Protocol):
    """What a run tells about itself."""

    def metrics(self, entry: Metrics) -> None:
        """An update (it has a ``loss``) or a validation (it has a ``valid_nll``)."""

    def say(self, line: str) -> None:
        """A line of its own: a stage of the preparation, the end of the run."""


@contextmanager
def view_on(console: Console) -> Iterator[View]:
    """The live view on a terminal, the plain one elsewhere, for the time of a run."""
    if not console.is_terminal:
        yield PlainView(console)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("updates"), MofNCompleteColumn(), BarColumn(24), TextColumn("{task.description}")
    with Progress(*columns, console=console) as progress:
        yield LiveView(progress)


class Smoothed:
    """Means over the last updates, and the time left at the pace since the view began."""

    def __init__(self) -> None:
        self.losses: deque[float] = deque(maxlen=_SMOOTH)
        self.speeds: deque[float] = deque(maxlen=_SMOOTH)
        self.began = time.monotonic()
        self.first: int | None = None

    def add(self, entry: Metrics) -> str:
        """Count an update; loss, rate, speed and time left as text."""
        self.losses.append(entry["loss"])
        self.speeds.append(entry["tokens_per_second"])
        if self.first is None:
            self.first = entry["step"] - 1
        pace = (time.monotonic() - self.began) / (entry["step"] - self.first)
        loss, speed = (sum(values) / len(values) for values in (self.losses, self.speeds))
        left = duration(pace * (entry["steps"] - entry["step"]))
        return f"loss {loss:.3f}  rate {entry['rate']:.2e}  {speed:,.0f} tokens/s  {left} left"


def validation_line(entry: Metrics) -> str:
    """One validation as text."""
    bleu = f", BLEU {entry['bleu']:.1f}" if "bleu" in entry else ""
    return f"validation at update {entry['step']}: perplexity {entry['perplexity']:.2f}{bleu}"


def duration(seconds: float) -> str:
    """``1 h 05 min``, ``3 min 20 s`` or ``12 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class PlainView:
    """A line every 50 updates: for logs, and for whoever reads them."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.smoothed = Smoothed()

    def metrics(self, entry: Metrics) -> None:
        if "loss" not in entry:
            self.say(validation_line(entry))
            return
        text = self.smoothed.add(entry)
        if entry["step"] % _SMOOTH == 0 or entry["step"] == entry["steps"]:
            self.say(f"update {entry['step']}/{entry['steps']}  epoch {entry['epoch']}  {text}")

    def say(self, line: str) -> None:
        self.console.print(escape(line), soft_wrap=True, highlight=False)


class LiveView:
    """A progress bar that is redrawn in place; validations stay above it."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task = progress.add_task("preparing", total=None)
        self.smoothed = Smoothed()

    def metrics(self, entry: Metrics) -> None:
        if "loss" not in entry:
            self.say(validation_line(entry))
            return
        text = self.smoothed.add(entry)
        self.progress.update(self.task, completed=entry["step"], total=entry["steps"], description=text)

    def say(self, line: str) -> None:
        self.progress.console.print(escape(line), highlight=False)
