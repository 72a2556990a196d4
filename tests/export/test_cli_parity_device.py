"""``lite-export parity --device host``: the ladder in the native runner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_mutations import broken, shift_position
from typer.testing import CliRunner

from lite_export.cli import app
from lite_runtime.bundle import Bundle, open_bundle
from lite_runtime.device_parity import runnable
from lite_runtime.runner_folder import RunnerFolder


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["parity", *(str(a) for a in arguments)])
    return result.exit_code, result.output


def rungs_of(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    content = json.loads(path.read_text())
    return {(entry["name"], rung["name"]): rung for entry in content["formats"] for rung in entry["rungs"]}


def test_it_sees_what_python_sees(native_bundle: Bundle, runner_folder: RunnerFolder, tmp_path: Path) -> None:
    """The same runtimes over the same recording: the same differences, but for the summation of the last digits."""
    there, here = tmp_path / "there.json", tmp_path / "here.json"
    code, output = run(native_bundle.folder, "--device", "host", "--runner", runner_folder.folder, "--json", there)
    assert code == 0, output
    assert "on host" in " ".join(output.split())
    assert run(native_bundle.folder, "--recorded", "--json", here)[0] == 0
    native, python = rungs_of(there), rungs_of(here)
    assert {name for _, name in native} == {"outputs", "steps", "tokens", "hypotheses"}
    for key, rung in native.items():
        if key[1] in ("outputs", "steps"):
            assert rung["checked"] == python[key]["checked"]
            assert rung["worst"] == pytest.approx(python[key]["worst"], abs=1e-6)
            assert rung["tolerance"] == python[key]["tolerance"]


def test_a_breach(tiny_bundle: Path, runner_folder: RunnerFolder, tmp_path: Path) -> None:
    changed = broken(tiny_bundle, tmp_path / "changed", "step", shift_position)
    code, output = run(changed, "--device", "host", "--runner", runner_folder.folder)
    assert code == 1
    assert "steps: first at batch 0, step 0, self_key.0" in output
    assert "hypotheses: first at" in output


def test_fewer_sentences(tiny_bundle: Path, runner_folder: RunnerFolder, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ["--device", "host", "--runner", runner_folder.folder, "--sentences", 3, "--json", report]
    assert run(tiny_bundle, *options)[0] == 0
    assert rungs_of(report)["onnx fp32", "hypotheses"]["checked"] == 6


def test_core_ml_runs_elsewhere(native_bundle: Bundle) -> None:
    first = native_bundle.manifest.formats[0]
    assert runnable((first, first.model_copy(update={"format": "coreml"}))) == (first,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--runner", "."], "--runner is for --device"),
        (["--device", "host", "--against", "."], "leave out --model, --against and --test-set"),
        (["--device", "host", "--runner", "nowhere"], "nowhere holds no native runner"),
        (["--device", "toaster"], "unknown device 'toaster'"),
        (["--device", "host", "--format", "coreml"], "has no coreml"),
    ],
)
def test_what_makes_no_sense(tiny_bundle: Path, options: list[str], message: str) -> None:
    code, output = run(tiny_bundle, *options)
    assert code == 1
    assert message in " ".join(output.split())


def test_only_core_ml(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    entry = bundle.manifest.formats[0].model_copy(update={"format": "coreml"})
    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in (p for p in tiny_bundle.rglob("*") if p.is_file()):
        target = folder / path.relative_to(tiny_bundle)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    manifest = bundle.manifest.model_copy(update={"formats": (entry,)})
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    code, output = run(folder, "--device", "host")
    assert code == 1
    assert "Core ML runs on Apple's devices" in " ".join(output.split())
