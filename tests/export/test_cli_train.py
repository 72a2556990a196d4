"""``lite-export train``: a whole run, Ctrl-C and continuation, and mistakes in the recipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from lite_export.cli import app
from lite_export.cli.train_view import Smoothed, duration, validation_line, view_on
from lite_export.loading import load_model_card
from tiny_models import shipped_model

runner = CliRunner()
STEPS = 4


def write_recipe(folder: Path, steps: int = STEPS, **changes: object) -> Path:
    """A run of a few updates on the shipped sentences, and its data."""
    words = (shipped_model() / "sentences.txt").read_text("utf8").split()
    sentences = [" ".join(words[i : i + 4]) for i in range(0, len(words) - 4, 2)]
    lines = [f"{s}\t{s.upper()}\n" for s in sentences]
    (folder / "train.tsv").write_text("".join(lines[20:]), "utf8")
    (folder / "valid.tsv").write_text("".join(lines[:20]), "utf8")
    recipe = {
        "name": "small",
        "preset": "phone",
        "source_language": "en",
        "target_language": "fr",
        "train": [{"name": "own", "path": "train.tsv", "licence": "MIT"}],
        "validation": {"name": "valid", "path": "valid.tsv"},
        "tokenizer": {"vocab": 120},
        "schedule": {"peak": 0.001, "warmup": 2, "steps": steps},
        "batch_tokens": 64,
        "validate_every": 2,
        "bleu_every": 4,
        "bleu_sentences": 4,
        "average_every": 2,
        "average": 2,
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_a_run_from_recipe_to_translation(tmp_path: Path) -> None:
    # Translates in the middle too: a model that was looked at goes on learning.
    recipe, output = write_recipe(tmp_path, bleu_every=2), tmp_path / "run"
    result = runner.invoke(app, ["train", str(recipe), "--data", str(tmp_path), "--output", str(output)])
    assert result.exit_code == 0, result.output
    for words in ("small: starting", "pairs after cleaning", f"update {STEPS}/{STEPS}", "perplexity", "BLEU", "done:"):
        assert words in result.stdout
    card = load_model_card(output / "final")
    assert (card.model_id, card.licence, card.training_data) == ("small", "MIT", ("own",))
    assert card.parameters > 1e6
    curve = (output / "curve.svg").read_text("utf8")
    assert ">validation perplexity<" in curve
    assert ">validation BLEU<" in curve
    translated = runner.invoke(app, ["translate", "--model", str(output / "final"), "--max-length", "5", "Hello."])
    assert translated.exit_code == 0, translated.stderr

    again = runner.invoke(app, ["train", str(recipe), "--data", str(tmp_path), "--output", str(output)])
    assert again.exit_code == 0
    assert f"continuing in {output} from update {STEPS} of {STEPS}" in again.stdout


def test_ctrl_c_saves_and_the_same_command_continues_but_not_beside_it(tmp_path: Path) -> None:
    output, steps = tmp_path / "run", 2000
    recipe = write_recipe(tmp_path, steps=steps)
    command = ["train", str(recipe), "--data", str(tmp_path), "--output", str(output), "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lite_export.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with process:
        assert process.stdout and process.stderr
        for line in process.stdout:
            if line.startswith("validation"):
                second = runner.invoke(app, command)
                assert (second.exit_code, "another process is at work in" in second.stderr) == (1, True)
                assert not second.stdout, "it says nothing of continuing"
                process.send_signal(signal.SIGINT)
                break
        said = process.stdout.read()
        errors = process.stderr.read()
        assert process.wait(120) == 130
    assert "interrupted: stopped after update" in said
    assert "Traceback" not in errors
    reached = json.loads((output / "state" / "progress.json").read_text())["step"]
    assert 2 <= reached < steps
    assert not list(output.glob(".*"))
    # The same command, with the end brought near.
    write_recipe(tmp_path, steps=reached + 1)
    result = runner.invoke(app, command)
    assert result.exit_code == 0, result.output
    assert f"from update {reached} of {reached + 1}" in result.stdout


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preset": "huge"}, "no preset 'huge'; there are: phone"),
        ({"schedule": {"steps": 0}}, "schedule.steps"),
        ({"colour": "red"}, "colour"),
        ({"train": [{"name": "own", "path": "none.tsv"}]}, "no data file"),
        ({"start": "none"}, "no model at none: name a model folder, a bundle, or a shipped model (en-fr, fr-en)"),
    ],
)
def test_a_recipe_that_cannot_run(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    recipe = write_recipe(tmp_path, **changes)
    result = runner.invoke(app, ["train", str(recipe), "--data", str(tmp_path), "--output", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert words in result.stderr
    assert not (tmp_path / "run" / "final").exists()


def test_a_run_that_starts_from_the_shipped_model(tmp_path: Path) -> None:
    recipe, output = write_recipe(tmp_path, start="en-fr", bleu_every=0), tmp_path / "run"
    result = runner.invoke(app, ["train", str(recipe), "--data", str(tmp_path), "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert "tokenizer: 8000 pieces" in result.stdout
    tokenizers = [(folder / "tokenizer.model").read_bytes() for folder in (output / "final", shipped_model())]
    assert tokenizers[0] == tokenizers[1]
    card, before = load_model_card(output / "final"), load_model_card(shipped_model())
    assert (card.model_id, card.training_data) == ("small", (*before.training_data, "own"))
    assert (card.licence, card.scores) == (f"{before.licence}; MIT", {})
    assert card.decoding == before.decoding


def test_a_bundle_is_nothing_to_start_from(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    recipe = write_recipe(tmp_path, start=str(tmp_path / "bundle"))
    result = runner.invoke(app, ["train", str(recipe), "--data", str(tmp_path), "--output", str(tmp_path / "run")])
    assert (result.exit_code, "is a bundle: name the model folder it was made of" in result.stderr) == (1, True)


def test_no_recipe_and_damaged_state(tmp_path: Path) -> None:
    arguments = ["--data", str(tmp_path), "--output", str(tmp_path / "run")]
    missing = runner.invoke(app, ["train", str(tmp_path / "none.yaml"), *arguments])
    assert (missing.exit_code, "cannot read the recipe" in missing.stderr) == (1, True)
    state = tmp_path / "run" / "state"
    state.mkdir(parents=True)
    (state / "progress.json").write_text("{")
    damaged = runner.invoke(app, ["train", str(write_recipe(tmp_path)), *arguments])
    assert (damaged.exit_code, "is damaged" in damaged.stderr) == (1, True)


def _update(step: int, loss: float = 2.0) -> dict[str, object]:
    return {"step": step, "steps": 100, "epoch": 0, "loss": loss, "rate": 1e-3, "norm": 1.0, "tokens_per_second": 500.0}


def test_the_time_left_counts_from_the_first_update_that_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from the preparation before it, whose time is not an update's."""
    clock = iter([1000.0, 1020.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    smoothed = Smoothed()
    assert "left" not in smoothed.add(_update(20))
    assert smoothed.add(_update(40)).endswith("  1 min 00 s left")


def test_losses_are_smoothed() -> None:
    smoothed = Smoothed()
    smoothed.add(_update(1, 4.0))
    assert smoothed.add(_update(2, 2.0)).startswith("loss 3.000  rate 1.00e-03  500 tokens/s")


def test_the_live_view_shows_update_and_validation() -> None:
    console = Console(force_terminal=True, width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file, view_on(console) as view:
        view.metrics(_update(7))
        view.metrics({"step": 7, "perplexity": 12.5, "valid_nll": 2.5, "bleu": 3.25})
        view.say("[brackets] are text")
    shown = console.export_text()
    for words in ("7/100", "loss 2.000", "perplexity 12.50, BLEU 3.2", "[brackets] are text"):
        assert words in shown


def test_plain_words() -> None:
    assert [duration(s) for s in (12.0, 200.0, 3900.0)] == ["12 s", "3 min 20 s", "1 h 05 min"]
    assert validation_line({"step": 5, "perplexity": 8.0}) == "validation at update 5: perplexity 8.00"
