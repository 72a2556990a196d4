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
        """Updates since the entry before (it has a ``loss``) or a validation (it has a ``valid_nll``)."""

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
    """Means over the last 50 updates, and the time left at the pace since the first of them that was seen."""

    def __init__(self) -> None:
        self.entries: deque[Metrics] = deque()
        self.first: tuple[int, float] | None = None

    def add(self, entry: Metrics) -> str:
        """Count an entry; loss, rate, speed, and utilisation and time left where they are known, as text."""
        self.entries.append(entry)
        while self.entries[0]["step"] <= entry["step"] - _SMOOTH:
            self.entries.popleft()
        used = f" ({self._mean('utilisation'):.0%} of peak)" if entry.get("utilisation") is not None else ""
        speed = f"{self._mean('tokens_per_second'):,.0f} tokens/s{used}"
        return f"loss {self._mean('loss'):.3f}  rate {entry['rate']:.2e}  {speed}{self._left(entry)}"

    def _left(self, entry: Metrics) -> str:
        """The time left; nothing at the first entry, before which data were prepared."""
        now = time.monotonic()
        if self.first is None:
            self.first = entry["step"], now
        step, began = self.first
        if entry["step"] == step:
            return ""
        pace = (now - began) / (entry["step"] - step)
        return f"  {duration(pace * (entry['steps'] - entry['step']))} left"

    def _mean(self, name: str) -> float:
        return sum(entry[name] for entry in self.entries) / len(self.entries)


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
    """A line about every 50 updates: for logs, and for whoever reads them."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.smoothed = Smoothed()
        self.seen = 0

    def metrics(self, entry: Metrics) -> None:
        if "loss" not in entry:
            self.say(validation_line(entry))
            return
        text = self.smoothed.add(entry)
        before, self.seen = self.seen, entry["step"]
        # Entries need not come at every update.
        if before // _SMOOTH < entry["step"] // _SMOOTH or entry["step"] == entry["steps"]:
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
