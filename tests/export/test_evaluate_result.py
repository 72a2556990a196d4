"""Evaluations as files: what is read back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lite_export.evaluate import EvaluationSet, Output, score_outputs
from lite_export.evaluate_result import Evaluation, EvaluationError, System, read_evaluation


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    texts = tuple(f"The cat number {n} sat on the mat." for n in range(5))
    outputs = [Output("ours", texts, 1.0), Output("theirs", texts[::-1])]
    scores, signatures = score_outputs(EvaluationSet("cats", texts, texts, 5, "en-fr"), outputs, resamples=100)
    systems = tuple(System(name=name, form="recorded") for name in ("ours", "theirs"))
    return Evaluation(
        producer="lite-export",
        created="2026-01-01T00:00:00+00:00",
        signatures=signatures,
        systems=systems,
        scores=tuple(scores),
    )


def test_what_is_written_is_read(evaluation: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text(evaluation.model_dump_json(), "utf8")
    assert read_evaluation(path) == evaluation
    assert list(evaluation.by_set()) == ["cats en-fr"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "bench"}, "is no result of lite-export evaluate --json"),
        ({"schema_version": 2}, "has schema 2, this version reads 1"),
        ({"scores": [{}]}, r"is damaged: scores\.0\.system"),
        ({"scores": []}, "has no scores"),
        ({"created": "yesterday"}, r"is damaged: created"),
        ({"systems": []}, "has scores of ours, which is none of its systems"),
    ],
)
def test_other_files_are_refused(evaluation: Evaluation, tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(json.loads(evaluation.model_dump_json()) | change), "utf8")
    with pytest.raises(EvaluationError, match=message):
        read_evaluation(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no json", "is no JSON"), (b"\xff", "is no JSON"), (b"[1]", "is no result of lite-export evaluate")],
)
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "scores.json"
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match=message):
        read_evaluation(path)
