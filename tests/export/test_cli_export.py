"""The ``export`` and ``parity`` commands on a tiny model: what is printed, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from typer.testing import CliRunner

from lite_export.cli import app


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.output


def test_parity_of_a_good_bundle(tiny_bundle: Path, tiny_folder: Path, tmp_path: Path) -> None:
    code, output = run("parity", tiny_bundle, "--model", tiny_folder, "--json", tmp_path / "report.json")
    assert code == 0, output
    assert output.count("equal") == 6
    assert json.loads((tmp_path / "report.json").read_text())["reference"] == "pytorch"


def test_parity_from_the_recording(tiny_bundle: Path) -> None:
    code, output = run("parity", tiny_bundle, "--recorded", "--sentences", 3)
    assert code == 0, output
    assert "against the recording" in output


def test_parity_with_another_model_names_the_fix(tiny_bundle: Path) -> None:
    code, output = run("parity", tiny_bundle)
    assert code == 1
    assert "error:" in output
    assert "--model" in output


def _edit_manifest(bundle: Path, key: str, value: object) -> None:
    path = bundle / "manifest.json"
    content = json.loads(path.read_text())
    content[key] = value
    path.write_text(json.dumps(content))


def test_bad_bundles(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    _edit_manifest(copy, "schema_version", 7)
    assert run("parity", copy)[0] == 1
    assert "bundle has schema 7, this version reads 2" in run("translate", "--model", copy, "hello")[1]
    shutil.copy(tiny_bundle / "manifest.json", copy)
    (copy / "onnx" / "fp32" / "step.onnx").unlink()
    code, output = run("parity", copy)
    assert code == 1
    assert "onnx/fp32/step.onnx is missing" in output
    assert run("parity", tmp_path / "nowhere")[0] == 1


def test_export_errors_leave_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_folder, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    target = tmp_path / "bundle"
    code, output = run("export", broken, "--output", target)
    assert code == 1
    assert "model.safetensors is truncated" in output
    assert run("export", tiny_folder, "--output", target, "--to", "tflite")[0] == 1
    latin = tmp_path / "latin.txt"
    latin.write_bytes("été\n".encode("latin1"))
    code, output = run("export", tiny_folder, "--output", target, "--sentences", latin)
    assert code == 1
    assert "is not UTF-8" in output
    code, output = run("export", tiny_folder, "--output", latin / "bundle")
    assert code == 1
    assert "is a file, a folder is needed" in output
    assert not target.exists()
    assert not list(tmp_path.glob(".*"))


def test_export_without_permission(tiny_folder: Path, tmp_path: Path) -> None:
    """A folder closed to everyone; for root, who may write anywhere, the kernel's own."""
    locked = Path("/sys")
    if os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
    code, output = run("export", tiny_folder, "--output", locked / "bundle")
    assert code == 1
    assert "choose a place you may" in output


def test_ctrl_c_in_export_leaves_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    """A real process, interrupted once its staging folder stands."""
    command = [sys.executable, "-m", "lite_export.cli", "export", str(tiny_folder), "--output", "bundle"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".*.partial")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
