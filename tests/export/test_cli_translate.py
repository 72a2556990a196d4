"""``lite-export translate``: text, files and pipes in; lines, JSON and files out; bad input refused kindly."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from lite_export.cli import app
from lite_export.cli.errors import InputError
from lite_export.cli.lines import chunks
from lite_export.loading import load_translator

runner = CliRunner()
LINES = ("Good morning.", "", "Where is the station?", "   ", "I am here. You are there.", "Thank you.")


def translate(model: Path, *arguments: str, stdin: str | bytes | None = None) -> Result:
    return runner.invoke(app, ["translate", "--model", str(model), *arguments], input=stdin)


@pytest.fixture(scope="module")
def expected(tiny_folder: Path) -> list[str]:
    return [t.text for t in load_translator(tiny_folder).translate(list(LINES))]


def test_an_argument(tiny_folder: Path, expected: list[str]) -> None:
    result = translate(tiny_folder, LINES[0])
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{expected[0]}\n", "")


@pytest.mark.parametrize("size", ["1", "16"])
def test_one_line_in_one_line_out(tiny_folder: Path, expected: list[str], size: str) -> None:
    result = translate(tiny_folder, "--batch-size", size, stdin="\n".join(LINES) + "\n")
    assert result.stdout == "\n".join(expected) + "\n"
    assert result.stdout.splitlines()[1] == ""


def test_a_bundle_translates_like_its_model(tiny_bundle: Path, expected: list[str]) -> None:
    result = translate(tiny_bundle, "--threads", "1", stdin="\n".join(LINES))
    assert result.stdout == "\n".join(expected) + "\n"


def test_a_file_in_and_out(tiny_folder: Path, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes("\r\n".join(LINES).encode())
    result = translate(tiny_folder, "--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "new" / "out.txt"))
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "new" / "out.txt").read_text("utf8") == "\n".join(expected) + "\n"
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_json_has_scores_and_hypotheses(tiny_folder: Path, expected: list[str]) -> None:
    result = translate(tiny_folder, "--json", "--nbest", "2", "--beam", "3", stdin=f"{LINES[4]}\n\n")
    first, second = map(json.loads, result.stdout.splitlines())
    assert first["source"] == LINES[4]
    assert [s["source"] for s in first["sentences"]] == ["I am here.", "You are there."]
    for sentence in first["sentences"]:
        scores = [h["score"] for h in sentence["hypotheses"]]
        assert len(scores) == 2
        assert scores == sorted(scores, reverse=True)
    assert second == {"source": "", "translation": "", "score": 0.0, "sentences": []}


def test_nbest_names_the_line(tiny_folder: Path) -> None:
    result = translate(tiny_folder, "--nbest", "2", stdin="Good morning.\nThank you.\n")
    numbers = [line.split(" ||| ")[0] for line in result.stdout.splitlines()]
    assert numbers == ["0", "0", "1", "1"]


def test_options_reach_the_search(tiny_folder: Path) -> None:
    long = translate(tiny_folder, LINES[0], "--min-length", "20", "--max-length", "20", "--json")
    assert len(json.loads(long.stdout)["sentences"][0]["hypotheses"][0]["tokens"]) == 21
    forced = translate(tiny_folder, LINES[0], "--prefix", "Good")
    assert forced.stdout.startswith("Good")


@pytest.mark.parametrize("text", ["", "\U0001f600", "a\0b", "word " * 2000, "x" * 10_000, "é" * 300 + "\n\n漢字."])
def test_odd_text_is_no_error(tiny_folder: Path, text: str) -> None:
    result = translate(tiny_folder, text, "--beam", "1")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith("\n")


def test_a_nul_byte_keeps_the_lines(tiny_folder: Path) -> None:
    result = translate(tiny_folder, stdin="One\0 line.\nTwo.\n")
    assert (result.exit_code, result.stdout.count("\n")) == (0, 2)


def test_bytes_that_are_not_utf8(tiny_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.txt"
    result = translate(tiny_folder, "--output", str(output), stdin=b"Fine.\ncaf\xe9\n")
    assert result.exit_code == 1
    assert "standard input, line 2: byte 0xe9 at column 4 is not UTF-8" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_argument_that_is_not_utf8(tiny_folder: Path) -> None:
    result = translate(tiny_folder, "caf\udce9")
    assert result.exit_code == 1
    assert "not UTF-8" in result.stderr


def test_text_and_input_exclude_each_other(tiny_folder: Path) -> None:
    assert translate(tiny_folder, "x", "--input", "y").exit_code == 2


def test_contradicting_options_say_which(tiny_folder: Path) -> None:
    result = translate(tiny_folder, "Hello.", "--beam", "2", "--nbest", "3")
    assert result.exit_code == 1
    assert "beam of 2" in result.stderr


def test_missing_input_and_folders_as_files(tiny_folder: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (("--input", str(tmp_path / "no.txt")), "no.txt: no such file"),
        (("--input", str(tmp_path)), "is a folder"),
        (("--output", str(tmp_path)), "is a folder"),
    ):
        result = translate(tiny_folder, *arguments, stdin="Hello.\n")
        assert (result.exit_code, words in result.stderr) == (1, True), result.stderr


def test_no_permission_to_write(tiny_folder: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    target = locked / "out.txt"
    if os.access(locked, os.W_OK):
        # The superuser may write anywhere; nobody may make a file in /proc.
        target = Path("/proc/out.txt")
    result = translate(tiny_folder, "Hello.", "--output", str(target))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {target.parent}")


def test_a_device_is_written_in_place(tiny_folder: Path) -> None:
    assert translate(tiny_folder, "Hello.", "--output", os.devnull).exit_code == 0
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "no model at"),
        (lambda folder: (folder / "config.json").unlink(), "neither config.json"),
        (lambda folder: os.truncate(folder / "model.safetensors", 900), "truncated"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
        (lambda folder: (folder / "tokenizer.model").write_bytes(b"x"), "SentencePiece"),
        (lambda folder: (folder / "tokenizer.model").unlink(), "has no tokenizer.model"),
        (lambda folder: (folder / "card.json").write_text("{}"), "card.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a model config"),
    ],
)
def test_a_damaged_model_folder(tiny_folder: Path, tmp_path: Path, damage, words: str) -> None:
    copy = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    damage(copy)
    result = translate(copy, "Hello.")
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr


def _rewrite_version(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))


def _flip_a_byte(folder: Path) -> None:
    path = next((folder / "onnx").rglob("weights.bin"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("damage", "words"), [(_rewrite_version, "schema 99"), (_flip_a_byte, "sha256 differs")])
def test_a_damaged_bundle(tiny_bundle: Path, tmp_path: Path, damage, words: str) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    damage(copy)
    result = translate(copy, "Hello.")
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr


def test_a_pipe_is_answered_line_by_line(tiny_folder: Path, expected: list[str]) -> None:
    command = [sys.executable, "-m", "lite_export.cli", "translate", "--model", str(tiny_folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        for line, answer in zip(LINES[:3], expected[:3], strict=True):
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
            # Standard input is still open: this would wait for ever if lines were held back.
            assert process.stdout.readline().decode() == f"{answer}\n"
        process.stdin.close()
        assert process.wait(60) == 0


WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from lite_export.cli import main; main()"


def test_a_bundle_needs_no_torch(tiny_bundle: Path, tiny_folder: Path, expected: list[str]) -> None:
    def run(model: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT_TORCH, "translate", "--model", str(model), LINES[0]]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    bundle, folder = run(tiny_bundle), run(tiny_folder)
    assert (bundle.returncode, bundle.stdout) == (0, f"{expected[0]}\n"), bundle.stderr
    assert folder.returncode == 1
    assert folder.stderr == "error: this needs torch, which is not installed: pip install 'lite-export[torch]'\n"


def test_the_shipped_model_is_the_default() -> None:
    result = runner.invoke(app, ["translate", "Good morning.", "--beam", "1"])
    assert result.exit_code == 0
    assert result.stdout.strip()


def test_chunks_keep_every_line() -> None:
    content = b"one\n\ntwo\r\n" + b"x" * 200_000 + b"\nlast"
    lines = [line for chunk in chunks(BytesIO(content), "x", 2) for line in chunk]
    assert lines == ["one", "", "two", "x" * 200_000, "last"]
    assert list(chunks(BytesIO(b""), "x", 2)) == []
    with pytest.raises(InputError, match="x, line 3"):
        list(chunks(BytesIO(b"a\nb\n\xff\n"), "x", 2))
