"""Other systems' translations, recorded one a line in files (plain or .xz), in the order of a set."""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from pathlib import Path

from lite_export.evaluate import EvaluationSet, Output
from lite_export.evaluate_result import EvaluationError

_SUFFIXES = (".txt", ".txt.xz")
Recorded = tuple[EvaluationSet, Output]


def read_lines(path: Path) -> list[str]:
    """Lines of UTF-8 text.

    Raises:
        FileNotFoundError: there is no such file.
        EvaluationError: it is damaged, or not UTF-8.
    """
    opener = lzma.open if path.suffix == ".xz" else open
    try:
        with opener(path, "rt", encoding="utf8", newline="\n") as lines:
            return [line.removesuffix("\n").removesuffix("\r") for line in lines]
    except (lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path} is damaged or not UTF-8 text: {error}") from None


def read_output(path: Path, system: str, data: EvaluationSet) -> Output:
    """A system's translations of a set; where the set was cut short, of the whole set or of what is left.

    Raises:
        FileNotFoundError: there is no such file.
        EvaluationError: it is damaged, or of another number of lines.
    """
    lines = read_lines(path)
    if len(lines) not in (data.total, len(data.sources)):
        raise EvaluationError(
            f"{path} has {len(lines)} lines, but {data.title} has {data.total} sentences: it is of another set"
        )
    return Output(system, tuple(lines[: len(data.sources)]))


def find_peers(folder: Path, sets: Sequence[EvaluationSet]) -> list[Recorded]:
    """Every ``SOURCE-TARGET.SET.SYSTEM.txt[.xz]`` of a folder that is of one of the sets.

    Raises:
        EvaluationError: no such folder, nothing in it is of these sets, or a file is damaged or of another length.
    """
    if not folder.is_dir():
        raise EvaluationError(f"no folder {folder}: name one of translations with --peers")
    found = [
        (data, read_output(path, system, data))
        for data in sets
        if data.direction
        for path in sorted(folder.iterdir())
        if (system := _peer_name(path, f"{data.direction}.{data.name}."))
    ]
    if not found:
        titles = ", ".join(data.title for data in sets)
        raise EvaluationError(
            f"{folder} has no SOURCE-TARGET.SET.SYSTEM.txt or .txt.xz of the chosen sets ({titles}):"
            " choose others with --split or --set, or name another folder with --peers"
        )
    return found


def _peer_name(path: Path, prefix: str) -> str | None:
    """The system a file is of, if its set and direction are the prefix's."""
    ending = next((suffix for suffix in _SUFFIXES if path.name.endswith(suffix)), None)
    if ending is None or not path.name.startswith(prefix):
        return None
    return path.name.removeprefix(prefix).removesuffix(ending) or None


def named_output(entry: str, sets: Sequence[EvaluationSet]) -> Recorded:
    """What ``SYSTEM=FILE`` or ``SYSTEM@SET=FILE`` names; ``@SET`` may be left out where there is one set.

    Raises:
        EvaluationError: it is not of this form, names no set or several, or its file cannot be used.
    """
    name, equals, file = entry.partition("=")
    system, _, wanted = name.partition("@")
    if not (system and equals and file):
        raise EvaluationError(f"--system {entry!r}: write SYSTEM@SET=FILE")
    fitting = [data for data in sets if wanted in ("", data.name)]
    if len(fitting) != 1:
        titles = ", ".join(data.title for data in sets)
        problem = "fits several of" if fitting else "names none of"
        raise EvaluationError(f"--system {entry!r} {problem} the chosen sets: {titles}; write SYSTEM@SET=FILE")
    if not Path(file).is_file():
        raise EvaluationError(f"--system {entry!r}: there is no file {file}")
    return fitting[0], read_output(Path(file), system, fitting[0])
