"""A folder that holds a built native runner: the program, its libraries, and a note of what it was built for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lite_runtime.device import DeviceError

EXECUTABLE = "lite_runner"
NOTE = "runner.json"


class RunnerNote(BaseModel):
    """What ``runner.json`` says.

    Attributes:
        target: linux-x86_64, linux-arm64 or android-arm64.
        abi: the processor, by Android's name.
        loader: the dynamic loader in the folder that starts the program; None where the system's own does.
        formats: the bundle formats it runs.
        inputs: SHA-256 of all it was built from.
        sentencepiece: the folder of the SentencePiece it was built with; None knows token ids only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str
    abi: str
    loader: str | None
    formats: tuple[str, ...]
    inputs: str
    sentencepiece: str | None = None

    @property
    def text(self) -> bool:
        """Whether it translates text."""
        return self.sentencepiece is not None


@dataclass(frozen=True)
class RunnerFolder:
    """A built runner. It may be copied anywhere: all it needs lies in the folder."""

    folder: Path
    note: RunnerNote

    @property
    def abi(self) -> str:
        """The processor it was built for, by Android's name: x86_64 or arm64-v8a."""
        return self.note.abi

    def command(self, place: str = ".") -> tuple[str, ...]:
        """The words that start it, before its own arguments.

        Args:
            place: where the folder is, as seen from the working folder of the process.
        """
        program = f"{place}/{EXECUTABLE}"
        if self.note.loader is None:
            return (program,)
        return (f"{place}/{self.note.loader}", "--library-path", place, program)


def open_runner(folder: Path) -> RunnerFolder:
    """A runner built before.

    Raises:
        DeviceError: there is none, or not a whole one.
    """
    try:
        note = RunnerNote.model_validate_json((folder / NOTE).read_bytes())
    except FileNotFoundError:
        raise DeviceError(f"{folder} holds no native runner: lite-export build-runner --output {folder}") from None
    except ValidationError as error:
        raise DeviceError(f"{folder / NOTE} is damaged: {error.errors()[0]['msg']}; build the runner again") from None
    for name in filter(None, (EXECUTABLE, note.loader)):
        if not (folder / name).is_file():
            raise DeviceError(f"{folder} lacks {name}: build the runner again")
    return RunnerFolder(folder, note)
