"""The command line as a whole: help, version, exit codes, messages."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lite_export.cli import app
from lite_export.cli.errors import InputError, explain
from lite_runtime.bundle import BundleError

runner = CliRunner()
CLI = (sys.executable, "-m", "lite_export.cli")
COMMANDS = tuple(command.name for command in app.registered_commands)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['lite-export', '--help']\n"
        "from lite_export.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print('LOADED', *sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.partition("LOADED ")[2].split())
    assert "typer" in loaded
    assert loaded.isdisjoint(
        {"torch", "onnxruntime", "onnx", "numpy", "pydantic", "sacrebleu", "sentencepiece", "yaml"}
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"$ lite-export {command}" in result.output


def test_version() -> None:
    result = runner.invoke(app, ["--version"])
    assert (result.exit_code, result.output.split()[0]) == (0, "lite-export")
    assert result.output.split()[1][0].isdigit()


def test_usage_errors_exit_2_and_suggest() -> None:
    result = runner.invoke(app, ["translat", "x"])
    assert result.exit_code == 2
    assert "translate" in result.stderr


def test_a_users_mistake_is_one_line_without_traceback(tmp_path: Path) -> None:
    result = runner.invoke(app, ["translate", "x", "--model", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not isinstance(result.exception, ValueError)


def test_debug_lets_the_error_through(tmp_path: Path) -> None:
    result = runner.invoke(app, ["--debug", "translate", "x", "--model", str(tmp_path)])
    assert isinstance(result.exception, ValueError)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BundleError("export again"), "export again"),
        (InputError("write NAME=FILE"), "write NAME=FILE"),
        (PermissionError(errno.EACCES, "denied", "/out/x"), "/out/x: permission denied"),
        (OSError(errno.ENOSPC, "full", "/out/x"), "/out/x: the disk is full"),
        (FileNotFoundError(errno.ENOENT, "none", "x"), "x: no such file"),
        (OSError(errno.EIO, "Input/output error", "x"), "x: Input/output error"),
        (ModuleNotFoundError("no", name="onnxruntime.capi"), "pip install 'lite-export[onnx]'"),
        (ModuleNotFoundError("no", name="accelerate"), "pip install 'lite-export[train]'"),
    ],
)
def test_explains_what_a_user_can_mend(error: Exception, words: str) -> None:
    assert words in (explain(error) or "")


@pytest.mark.parametrize(
    "error", [ValueError("stray"), ModuleNotFoundError("no", name="no_such_thing"), OSError("odd")]
)
def test_a_fault_of_ours_keeps_its_traceback(error: Exception) -> None:
    assert explain(error) is None


def test_ctrl_c_exits_130_and_leaves_no_file(tiny_folder: Path, tmp_path: Path) -> None:
    command = [*CLI, "translate", "--model", str(tiny_folder), "--output", str(tmp_path / "out.txt")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdin and process.stderr
        process.stdin.write("One line.\n")
        process.stdin.flush()
        while not any(path.stat().st_size for path in tmp_path.glob("*.partial")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stderr = process.stderr.read()
        assert process.wait(60) == 130
    assert stderr.startswith("interrupted")
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_quiet(tiny_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("One line.\n" * 40)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        command = [*CLI, "translate", "--model", str(tiny_folder), "--input", str(source)]
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b""
    assert done.returncode == 1


def test_profile_prints_the_papers_numbers() -> None:
    result = runner.invoke(app, ["profile"])
    assert result.exit_code == 0
    for number in ("2.884M", "11.740M", "17.284M", "89.95M", "359.", "526.9", "119.23M", "209.66M", "798."):
        assert number in result.output


def test_profile_of_one_model_is_per_layer(tiny_folder: Path) -> None:
    preset = runner.invoke(app, ["profile", "iwslt-de-en-160"])
    assert "decoder.5" in preset.output
    found = json.loads(runner.invoke(app, ["profile", str(tiny_folder), "--source-length", "7", "--json"]).output)
    (record,) = found.values()
    assert record["source_length"] == 7
    assert record["mult_adds"] == sum(row["mult_adds"] for row in record["layers"])


def test_profile_names_what_there_is() -> None:
    result = runner.invoke(app, ["profile", "wmt-en-fr-1"])
    assert result.exit_code == 1
    assert "wmt-en-fr-200" in result.stderr
    assert "en-fr, fr-en" in result.stderr


def test_profile_of_a_shipped_model_and_of_what_is_none(tiny_bundle: Path, tmp_path: Path) -> None:
    found = json.loads(runner.invoke(app, ["profile", "fr-en", "--json"]).output)
    assert found["fr-en"]["parameters"] == 5_613_856
    for path, words in ((tiny_bundle, "is a bundle: name the model folder"), (tmp_path, "is no model: it has neither")):
        result = runner.invoke(app, ["profile", str(path)])
        assert (result.exit_code, words in result.stderr) == (1, True), result.stderr


def test_schema_describes_a_real_manifest(tiny_bundle: Path) -> None:
    schema = json.loads(runner.invoke(app, ["schema"]).output)
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert set(schema["required"]) <= set(manifest) <= set(schema["properties"])


CHECKPOINT = Path(__file__).parents[1] / "golden" / "mt_lightweight.fairseq_style.pt"


def test_import_fairseq_brings_the_original_over(tmp_path: Path) -> None:
    data, imported = tmp_path / "data", tmp_path / "imported"
    data.mkdir()
    for language, size in (("de", 52), ("en", 58)):
        (data / f"dict.{language}.txt").write_text("".join(f"{language}{i} {99 - i}\n" for i in range(size)))
    (data / "code").write_text("#version: 0.2\nd e\nde 1</w>\nde 2</w>\n")
    result = runner.invoke(app, ["import-fairseq", str(CHECKPOINT), "--output", str(imported), "--data", str(data)])
    assert result.exit_code == 0, result.stderr
    assert "parameters, de-en" in result.stdout
    assert "BPE codes: imported" in result.stdout
    translated = runner.invoke(app, ["translate", "de1 de2", "--model", str(imported)])
    assert translated.exit_code == 0, translated.stderr
    assert set(translated.stdout.split()) <= {f"en{i}" for i in range(58)}


def test_without_its_dictionaries_an_import_cannot_translate(tmp_path: Path) -> None:
    result = runner.invoke(app, ["import-fairseq", str(CHECKPOINT), "--output", str(tmp_path / "imported")])
    assert result.exit_code == 0, result.stderr
    assert "dictionaries: none" in result.stdout
    assert "note: no " in result.stdout
    translated = runner.invoke(app, ["translate", "x", "--model", str(tmp_path / "imported")])
    assert translated.exit_code == 1
    assert "vocabulary.json" in translated.stderr


def test_import_fairseq_refuses_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"not a pickle")
    result = runner.invoke(app, ["import-fairseq", str(tmp_path / "x.pt"), "--output", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert not (tmp_path / "out").exists()
