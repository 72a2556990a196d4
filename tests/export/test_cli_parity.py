"""``lite-export parity`` beyond one format against PyTorch: another bundle, a test set, a choice of formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_mutations import broken, shift_position, stale_window
from typer.testing import CliRunner

from lite_export.cli import app


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["parity", *(str(a) for a in arguments)])
    return result.exit_code, result.output


@pytest.fixture
def test_set(tmp_path: Path) -> Path:
    path = tmp_path / "test.tsv"
    path.write_text("Good morning, my friend.\tBonjour, mon ami.\nThe garden is open.\tLe jardin est ouvert.\n", "utf8")
    return path


def test_a_bundle_against_itself(tiny_bundle: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    code, output = run(tiny_bundle, "--against", tiny_bundle, "--json", report)
    assert code == 0, output
    content = json.loads(report.read_text())
    assert (content["reference"], content["against"]) == ("bundle", str(tiny_bundle))
    rungs = {r["name"]: r for r in content["formats"][0]["rungs"]}
    assert list(rungs) == ["outputs", "steps", "layers", "tokens", "hypotheses", "one call"]
    assert all(r["worst"] == 0 and r["passed"] for r in rungs.values())


def test_a_changed_bundle_against_the_last(tiny_bundle: Path, tmp_path: Path) -> None:
    changed = broken(tiny_bundle, tmp_path / "changed", "step", shift_position)
    code, output = run(changed, "--against", tiny_bundle)
    assert code == 1
    assert "steps: first at batch 0, step 0, self_key.0" in output
    assert "layers: first at batch 0, step 0, decoder_layer.0" in output


def test_quality_on_a_test_set(tiny_bundle: Path, tiny_folder: Path, test_set: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    code, output = run(tiny_bundle, "--model", tiny_folder, "--test-set", test_set, "--beam", 2, "--json", report)
    assert code == 0, output
    rung = json.loads(report.read_text())["formats"][0]["rungs"][-1]
    assert (rung["name"], rung["checked"], rung["passed"]) == ("bleu", 2, True)
    assert "chrF" in rung["at"]


def test_quality_shows_what_a_breakage_costs(
    tiny_bundle: Path, tiny_folder: Path, test_set: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    changed = broken(tiny_bundle, tmp_path / "changed", "step", stale_window)
    code, _ = run(changed, "--model", tiny_folder, "--test-set", test_set, "--json", report)
    assert code == 1
    assert json.loads(report.read_text())["formats"][0]["rungs"][-1]["name"] == "bleu"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "coreml"], "has no coreml; it has: onnx fp32 explicit"),
        (["--precision", "int8"], "has no int8; it has: onnx fp32 explicit"),
        (["--recorded", "--against", "."], "two references: choose one"),
        (["--against", "nowhere"], "no bundle at nowhere"),
        (["--recorded", "--test-set", "nowhere.tsv"], "leave out --test-set"),
    ],
)
def test_what_makes_no_sense(tiny_bundle: Path, tiny_folder: Path, options: list[str], message: str) -> None:
    code, output = run(tiny_bundle, "--model", tiny_folder, *options)
    assert code == 1
    assert message in " ".join(output.split())


def test_a_test_set_that_is_none(tiny_bundle: Path, tiny_folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tsv"
    bad.write_text("no tab in this line\n")
    code, output = run(tiny_bundle, "--model", tiny_folder, "--test-set", bad)
    assert code == 1
    assert "bad.tsv" in output
