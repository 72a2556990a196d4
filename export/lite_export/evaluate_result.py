"""What ``lite-export evaluate --json`` writes: systems, and what each scored on each set.

``lite-export schema evaluation`` prints its JSON Schema (docs/evaluation.schema.json).
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from lite_runtime.manifest import Part
from lite_runtime.quality import CorpusScores
from lite_runtime.result_files import read_result_file


class EvaluationError(ValueError):
    """Something cannot be evaluated, or an evaluation not be read; the message says what to do."""


class System(Part):
    """What translated.

    Attributes:
        name: under which its scores stand.
        form: ``pytorch``; format and precision of a bundle, as in ``onnx int8``; or ``recorded``, where only its
            translations are known and nothing else.
        weights_sha256: of the checkpoint; a bundle has that of the one it was exported from.
        mult_adds: the paper's count for a sentence pair of 30 and 30 tokens; None where no config tells.
        bytes: of the weights file, or of the files of the bundle's form.
        architecture: ``lite`` where a part of every layer convolves, else ``transformer``.
        beam: the width that was searched with.
    """

    name: str
    form: str
    model_id: str | None = None
    weights_sha256: str | None = None
    parameters: int | None = None
    mult_adds: int | None = None
    bytes: int | None = None
    architecture: Literal["lite", "transformer"] | None = None
    beam: int | None = None


class SetScores(Part):
    """One system on one set.

    Attributes:
        direction: as in ``en-fr``; None where no card tells it.
        set_sha256: of sources and references; scores compare where it is equal.
        empty: translations without a word.
        against: the system whose difference ``p_value`` tests; None for that system itself.
        seconds: wall time of the translation; None where it was recorded elsewhere.
        normalised: with straight quotes and plain spaces on both sides.
    """

    system: str
    set_name: str
    direction: str | None
    set_sha256: str
    sentences: int
    empty: int
    against: str | None
    seconds: float | None
    raw: CorpusScores
    normalised: CorpusScores

    @property
    def title(self) -> str:
        """The set's name with its direction."""
        return " ".join(filter(None, (self.set_name, self.direction)))

    @property
    def sentences_per_second(self) -> float | None:
        return self.sentences / self.seconds if self.seconds else None


class Evaluation(Part):
    """A whole evaluation. ``signatures`` are sacreBLEU's; they hold the number of resamples and the seed."""

    kind: Literal["evaluation"] = "evaluation"
    schema_version: Literal[1] = 1
    producer: str
    created: str = Field(description="ISO 8601, UTC")
    signatures: dict[str, str]
    systems: tuple[System, ...]
    scores: tuple[SetScores, ...]

    @field_validator("created")
    @classmethod
    def _a_time(cls, created: str) -> str:
        datetime.fromisoformat(created)
        return created

    def by_set(self) -> dict[str, list[SetScores]]:
        """Scores that were compared with each other, under the title of their set."""
        found: dict[str, list[SetScores]] = {}
        for scores in self.scores:
            found.setdefault(scores.title, []).append(scores)
        return found


def read_evaluation(path: Path) -> Evaluation:
    """An evaluation that was written before.

    Raises:
        EvaluationError: it is none, damaged, or of another version.
    """
    evaluation = read_result_file(path, Evaluation, "evaluation", "lite-export evaluate --json", EvaluationError)
    unknown = {score.system for score in evaluation.scores} - {system.name for system in evaluation.systems}
    if not evaluation.scores:
        raise EvaluationError(f"{path} has no scores: write it again with lite-export evaluate --json")
    if unknown:
        raise EvaluationError(f"{path} is damaged: it has scores of {min(unknown)}, which is none of its systems")
    return evaluation
