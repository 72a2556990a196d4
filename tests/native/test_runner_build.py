"""Building the native runner: nothing twice, nothing half, and errors that name what to install."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lite_export.cli import app
from lite_runtime import runner_build, runner_downloads
from lite_runtime.device import DeviceError
from lite_runtime.runner_build import build_runner
from lite_runtime.runner_downloads import RunnerBuildError, arm64_packages, onnxruntime_android
from lite_runtime.runner_folder import NOTE, RunnerFolder, RunnerNote, open_runner


def test_the_folder_holds_all_it_needs(runner_folder: RunnerFolder, tmp_path: Path) -> None:
    """Copied elsewhere it still starts: no library of the Python environment is asked for."""
    copy = tmp_path / "copy"
    shutil.copytree(runner_folder.folder, copy)
    said = runner_downloads.run_tool(["ldd", str(copy / "lite_runner")], tmp_path)
    ours = [line for line in said.splitlines() if "onnxruntime" in line or "executorch" in line]
    assert len(ours) >= 6
    assert all(f"=> {copy}/" in line for line in ours), said
    assert open_runner(copy).note == runner_folder.note


def test_what_did_not_change_is_not_built_again(runner_folder: RunnerFolder) -> None:
    told: list[str] = []
    before = (runner_folder.folder / "lite_runner").stat()
    again = build_runner(runner_folder.note.target, runner_folder.folder, told.append)
    assert again == runner_folder
    assert told == [f"{runner_folder.folder} is up to date"]
    assert (runner_folder.folder / "lite_runner").stat() == before


def test_a_build_that_fails_leaves_the_runner_that_was_there(
    runner_folder: RunnerFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says the tool's own words. Other sources are another hash, so it does try."""
    broken = tmp_path / "native"
    shutil.copytree(runner_build.sources(), broken, ignore=shutil.ignore_patterns("build"))
    with (broken / "CMakeLists.txt").open("a") as file:
        file.write('message(FATAL_ERROR "this cannot be")\n')
    monkeypatch.setattr(runner_build, "sources", lambda: broken)
    output = tmp_path / "runners" / "here"
    shutil.copytree(runner_folder.folder, output)
    with pytest.raises(RunnerBuildError, match=r"cmake.* failed with exit code 1(?s:.)*this cannot be"):
        build_runner(runner_folder.note.target, output)
    assert open_runner(output).note == runner_folder.note
    assert [path.name for path in output.parent.iterdir()] == ["here"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(RunnerBuildError, match="is there already, and no runner: choose another place"):
        build_runner("linux-x86_64", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("target", "variables", "message"),
    [
        ("windows", {}, "unknown target windows; there are: linux-x86_64, linux-arm64, android-arm64"),
        ("linux-x86_64", {"CXX": "no-such-compiler"}, "no-such-compiler is not installed: apt install g[+][+]"),
        ("linux-arm64", {"PATH": ""}, "aarch64-linux-gnu-g[+][+] is not installed: apt install g[+][+]-aarch64"),
        ("android-arm64", {"ANDROID_NDK_HOME": ""}, "no NDK: install it with Android Studio, then --ndk PATH"),
        (
            "android-arm64",
            {"ANDROID_NDK_HOME": "/usr"},
            "/usr is no NDK .it has no build/cmake/android.toolchain",
        ),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunnerBuildError, match=message):
        build_runner(target, tmp_path / "runner")
    assert list(tmp_path.iterdir()) == []


def test_cmake_is_needed(runner_folder: RunnerFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but CMake is there: the compiler by its path, the downloads in the cache."""
    monkeypatch.setenv("CXX", shutil.which("c++") or "")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RunnerBuildError, match="cmake is not installed: apt install cmake"):
        build_runner(runner_folder.note.target, tmp_path / "runner")
    assert list(tmp_path.iterdir()) == []


def test_npm_is_needed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITE_EXPORT_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RunnerBuildError, match=r"npm is not installed: install Node\.js, or set ONNXRUNTIME_INCLUDE"):
        onnxruntime_android(lambda line: None)
    assert list(tmp_path.rglob("*")) == [tmp_path / "native"]


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo evil > com.github.asus4.onnxruntime-0.4.9.tgz", "is not the file it should be .its sha256 differs.*"),
        ("true", "the registry gave no com.github.asus4.onnxruntime-0.4.9.tgz"),
        ("echo E404 not found >&2; exit 1", "npm pack .* failed with exit code 1:\nE404 not found"),
    ],
)
def test_a_registry_that_gives_something_else_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    """A registry in bad hands, or out of reach: nothing of what it gave is kept."""
    (tmp_path / "bin").mkdir()
    _program(tmp_path / "bin" / "npm", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("LITE_EXPORT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RunnerBuildError, match=message):
        onnxruntime_android(lambda line: None)
    assert list((tmp_path / "cache" / "native").iterdir()) == []


def test_pip_s_words_come_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITE_EXPORT_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(RunnerBuildError, match=r"failed with exit code 1:\n(?s:.)*onnxruntime==1.31.1"):
        arm64_packages(lambda line: None)
    assert list((tmp_path / "native").iterdir()) == []


def test_the_command_starts_the_loader_where_there_is_one(tmp_path: Path) -> None:
    note = RunnerNote(target="linux-arm64", abi="arm64-v8a", loader="ld.so", formats=("onnx",), inputs="0")
    runner = RunnerFolder(tmp_path, note)
    assert runner.command() == ("./ld.so", "--library-path", ".", "./lite_runner")
    assert runner.command("runner") == ("runner/ld.so", "--library-path", "runner", "runner/lite_runner")
    assert RunnerFolder(tmp_path, note.model_copy(update={"loader": None})).command() == ("./lite_runner",)


def test_a_folder_that_is_no_runner(tmp_path: Path, runner_folder: RunnerFolder) -> None:
    with pytest.raises(DeviceError, match="holds no native runner: lite-export build-runner --output"):
        open_runner(tmp_path)
    (tmp_path / NOTE).write_text("{")
    with pytest.raises(DeviceError, match=r"runner.json is damaged.*build the runner again"):
        open_runner(tmp_path)
    (tmp_path / NOTE).write_text(runner_folder.note.model_dump_json())
    with pytest.raises(DeviceError, match="lacks lite_runner: build the runner again"):
        open_runner(tmp_path)


def test_the_command_line(runner_folder: RunnerFolder) -> None:
    command = ["build-runner", "--target", runner_folder.note.target, "--output", str(runner_folder.folder)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert f"runner: {runner_folder.folder}" in done.output
    assert f"({runner_folder.abi}), runs onnx and executorch, reads token ids" in done.output
    refused = CliRunner().invoke(app, ["build-runner", "--target", "windows"])
    assert refused.exit_code == 1
    assert "error: unknown target windows" in refused.output
