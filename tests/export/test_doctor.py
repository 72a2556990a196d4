"""The doctor on a healthy installation, and on a sick one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import lite_export.loading
from lite_export.cli import app
from lite_export.doctor import adb, extra_of, extras, machine, model_works, version

runner = CliRunner()


def test_this_installation_is_healthy() -> None:
    result = runner.invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["healthy"]
    assert found["packages"]["torch"] == version("torch")
    statuses = {check["name"]: check["status"] for check in found["checks"]}
    details = {check["name"]: check["detail"] for check in found["checks"]}
    assert all(details[f"extra {name}"].partition(";")[0] for name in extras() if name), "each says what it is for"
    assert (
        statuses["shipped en-fr"] == statuses["shipped fr-en"] == statuses["packages"] == statuses["extra onnx"] == "ok"
    )


def test_a_truncated_shipped_model_is_found(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    os.truncate(broken / "model.safetensors", 1000)
    monkeypatch.setattr(lite_export.loading, "shipped_model", lambda _name: broken)
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "broken" in result.stdout
    assert "truncated" in result.stdout


def test_a_model_that_loads_and_translates_is_ok(tiny_folder: Path) -> None:
    assert model_works("mine", tiny_folder).status == "ok"


def test_a_missing_model_names_the_fix(tmp_path: Path) -> None:
    check = model_works("mine", tmp_path / "none")
    assert check.status == "broken"
    assert "reinstall" in check.detail


def test_extras_come_from_the_metadata() -> None:
    assert "onnxruntime" in extras()["onnx"]
    assert "numpy" in extras()[""]
    # An extra contains those it includes; a module belongs to the smallest.
    assert {"torch", "onnxruntime", "onnx"} <= set(extras()["export"])
    assert set(extras()["export"]) <= set(extras()["dev"])
    assert len(extras()["dev"]) == len(set(extras()["dev"])), "what several of them need is named once"
    assert extra_of("torch.nn") == "torch"
    assert extra_of("yaml") == "train"
    assert extra_of("vl_convert") == "report"
    assert extra_of("onnxruntime.capi") == "onnx"
    assert extra_of("onnx_ir") == "export"
    assert extra_of("json") is None


def test_machine_facts() -> None:
    facts = machine()
    assert int(facts["cores"]) >= 1
    assert facts["memory"].endswith(" GB")


def test_the_sdks_adb_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    # The one a Python package brings.
    assert adb().status == "ok"
    program = tmp_path / "sdk" / "platform-tools" / "adb"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    assert adb().detail == str(program)
