"""Translations kept from run to run: lines of text, and beside them what they are translations of, and by what.

``PAIR.SET.SYSTEM.txt`` is what ``--peers`` reads, so that one run's models are another's peers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from lite_export.cli.lines import output_stream
from lite_export.evaluate import EvaluationSet, Output, text_sha256
from lite_export.evaluate_models import fingerprint
from lite_export.evaluate_outputs import read_lines
from lite_export.evaluate_result import EvaluationError, System
from lite_runtime.manifest import Part


class Origin(Part):
    """What decides translations: equal origins, equal translations. ``model_sha256`` is of all of its files."""

    producer: str
    model_sha256: str
    form: str
    beam: int | None
    sources_sha256: str


class Stored(Part):
    """Beside a file of translations: their origin, their sha256, and the seconds they took."""

    origin: Origin
    sha256: str
    seconds: float


class Store:
    """A folder of translations. A file whose companion tells of another origin, or of other lines, counts as none.

    Args:
        folder: is made where it is not there.
        systems, sets: whose translations it shall tell apart.

    Raises:
        EvaluationError: the folder is a file, or two systems or sets would share one.
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: Path, systems: Iterable[System], sets: Iterable[EvaluationSet]) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise EvaluationError(f"{folder} is a file: name a folder with --save")
        folder.mkdir(parents=True, exist_ok=True)
        for names in ([system.name for system in systems], [data.name for data in sets]):
            taken: dict[str, str] = {}
            for name in names:
                if (other := taken.setdefault(_slug(name), name)) != name:
                    raise EvaluationError(f"{other} and {name} would share files in {folder}: rename one of them")

    def path(self, system: System, data: EvaluationSet) -> Path:
        """Where a system's translations of a set stand: those of its first sentences apart from those of all."""
        parts = filter(None, (data.direction, _slug(data.name), _slug(system.name)))
        whole = len(data.sources) == data.total
        folder = self.folder if whole else self.folder / f"first-{len(data.sources)}"
        return folder / f"{'.'.join(parts)}.txt"

    def find(self, system: System, origin: Origin, data: EvaluationSet) -> Output | None:
        """Translations of this very origin, if they are there and whole."""
        path = self.path(system, data)
        try:
            stored = Stored.model_validate_json(_companion(path).read_text("utf8"))
            lines = read_lines(path)
        except (FileNotFoundError, EvaluationError, ValidationError, UnicodeDecodeError):
            return None
        if stored.origin != origin or stored.sha256 != text_sha256(lines) or len(lines) != len(data.sources):
            return None
        return Output(system.name, tuple(lines), stored.seconds)

    def keep(self, system: System, origin: Origin, data: EvaluationSet, output: Output) -> None:
        """Store translations. The companion comes last: without it, what a kill leaves is not used."""
        path = self.path(system, data)
        with output_stream(path) as stream:
            stream.writelines(f"{line}\n" for line in output.hypotheses)
        stored = Stored(origin=origin, sha256=text_sha256(output.hypotheses), seconds=output.seconds or 0.0)
        with output_stream(_companion(path)) as stream:
            stream.write(stored.model_dump_json(indent=2) + "\n")


def origin_of(system: System, model: Path, data: EvaluationSet) -> Origin:
    """The origin of translations that would be made now."""
    return Origin(
        producer=f"lite-export {version('lite-export')}",
        model_sha256=fingerprint(model),
        form=system.form,
        beam=system.beam,
        sources_sha256=text_sha256(data.sources),
    )


def _companion(path: Path) -> Path:
    return path.with_suffix(".json")


def _slug(name: str) -> str:
    """A name as part of a file name."""
    return re.sub(r"[^\w-]+", "-", name).strip("-")
