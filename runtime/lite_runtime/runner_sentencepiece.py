"""SentencePiece for the native runner: header and library, found where installed or in a folder that was named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lite_runtime.runner_downloads import RunnerBuildError

_HEADER = "sentencepiece_processor.h"
_SYSTEM = (Path("/usr/local"), Path("/usr"))
_TRIPLETS = {
    "linux-x86_64": "x86_64-linux-gnu",
    "linux-arm64": "aarch64-linux-gnu",
    "android-arm64": "aarch64-linux-android",
}


@dataclass(frozen=True)
class SentencePiece:
    """One target's SentencePiece: the folder it was found in, that of its header, and the library to link."""

    folder: Path
    include: Path
    linked: Path


def find_sentencepiece(target: str, named: Path | None, before: Path | None, *, here: bool) -> SentencePiece | None:
    """What to build with; None where there is none.

    Args:
        named: the folder that must have it, in ``include`` and ``lib``.
        before: where it was when this runner was built before.
        here: the target is this computer, whose own will do.

    Raises:
        RunnerBuildError: the named folder has none for the target.
    """
    if named is not None:
        if found := _in(named.resolve(), target):
            return found
        libraries = " or ".join(f"lib/{name}" for name in _names(target))
        raise RunnerBuildError(f"{named} has no SentencePiece for {target}: it needs include/{_HEADER} and {libraries}")
    places = [*([before] if before else []), *(_SYSTEM if here else ())]
    return next(filter(None, (_in(place, target) for place in places)), None)


def _in(folder: Path, target: str) -> SentencePiece | None:
    include = folder / "include"
    libraries = (folder / lib / name for name in _names(target) for lib in (f"lib/{_TRIPLETS[target]}", "lib64", "lib"))
    library = next(filter(Path.is_file, libraries), None)
    return SentencePiece(folder, include, library) if library and (include / _HEADER).is_file() else None


def _names(target: str) -> tuple[str, ...]:
    # Of an NDK's shared libraries the C++ library would be another than the runner's own.
    static = "libsentencepiece.a"
    return (static,) if target == "android-arm64" else ("libsentencepiece.so", static)
