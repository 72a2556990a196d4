"""Whole runs on two hundred synthetic sentences: they learn, and a kill at any moment changes nothing."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lite_transformer.checkpoint import CheckpointError, load_model
from lite_transformer.presets import PRESETS, Preset
from lite_transformer.training.corpus import CorpusError
from lite_transformer.training.loop import Interrupted, train
from lite_transformer.training.recipe import Recipe, RecipeError
from lite_transformer.training.schedule import learning_rate
from lite_transformer.training.store import Progress
from reference_models import tiny_config
from tiny_models import shipped_model

NOUNS = ["dog", "cat", "bird", "house", "tree", "river", "stone", "friend", "window", "garden", "letter", "song"]
VERBS = ["sees", "likes", "finds", "hears", "paints", "loses"]
STEPS = 30
VOCAB = 40


def recipe(**changed: object) -> Recipe:
    """Many epochs of few batches; the rate does not depend on the number of updates."""
    return Recipe.model_validate(
        {
            "name": "tiny",
            "preset": "tiny",
            "source_language": "en",
            "target_language": "fr",
            "train": [{"name": "a", "path": "a.tsv"}, {"name": "b", "path": "b.tsv", "repeat": 0.5}],
            "validation": {"name": "dev", "path": "dev.tsv"},
            "tokenizer": {"vocab": VOCAB},
            "cleaning": {"max_tokens": 60},
            "schedule": {"kind": "inverse_sqrt", "peak": 0.02, "warmup": 5, "steps": STEPS},
            "batch_tokens": 400,
            "dropout": 0.1,
            "validate_every": 10,
            "average": 3,
            "average_every": 5,
            **changed,
        }
    )


@pytest.fixture(scope="module", autouse=True)
def tiny_preset() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        config = tiny_config("dynamic").model_copy(update={"weight_dropout": 0.1})
        patch.setitem(PRESETS, "tiny", Preset(config))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    pairs = [(f"{a} {verb} {b}", f"{b} {verb} {a}") for a in NOUNS for verb in VERBS for b in NOUNS if a != b]
    generator = torch.Generator().manual_seed(0)
    shuffled = [pairs[i] for i in torch.randperm(len(pairs), generator=generator)]
    for name, start, stop in (("a", 0, 150), ("b", 150, 210), ("dev", 210, 230)):
        (folder / f"{name}.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in shuffled[start:stop]))
    return folder


def run(
    data: Path, work: Path, chosen: Recipe | None = None, each: Callable[[dict[str, Any]], None] | None = None
) -> list[dict[str, Any]]:
    """Train, and return what was reported on the way."""
    seen: list[dict[str, Any]] = []

    def on_metrics(entry: dict[str, Any]) -> None:
        seen.append(entry)
        if each:
            each(entry)

    final = train(chosen or recipe(), data, work, on_metrics, lambda _: None)
    assert final == work / "final"
    return seen


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    work = tmp_path_factory.mktemp("whole") / "run"
    run(data, work)
    return work


def log(work: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def progress(work: Path) -> Progress:
    return Progress.model_validate_json((work / "state/progress.json").read_text()).model_copy(update={"seconds": 0})


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Every file equal to the bit, clocks apart."""
    assert progress(ours) == progress(theirs)
    assert log(ours) == log(theirs)
    weights = ["state/model.safetensors", "final/model.safetensors"]
    kept = sorted(p.name for p in (theirs / "checkpoints").iterdir())
    assert sorted(p.name for p in (ours / "checkpoints").iterdir()) == kept
    for name in [*weights, *(f"checkpoints/{name}" for name in kept)]:
        a, b = load_file(ours / name), load_file(theirs / name)
        assert set(a) == set(b)
        assert all(torch.equal(a[key], b[key]) for key in a), name
    a, b = (torch.load(work / "state/optimizer.pt", weights_only=True)["state"] for work in (ours, theirs))
    for index in a:
        assert all(torch.equal(a[index][key], b[index][key]) for key in a[index])


def leftovers(work: Path) -> list[str]:
    return [p.name for p in work.rglob("*") if p.name.endswith((".partial", ".old"))]


def test_a_run_learns_and_leaves_a_model(whole: Path) -> None:
    curve = log(whole)
    assert [line["step"] for line in curve] == [10, 20, 30]
    untrained = math.log(VOCAB)
    assert curve[-1]["valid_nll"] < curve[0]["valid_nll"] < untrained
    assert curve[-1]["valid_nll"] < 0.7 * untrained
    assert curve[-1]["perplexity"] == pytest.approx(math.exp(curve[-1]["valid_nll"]))
    model = load_model(whole / "final")
    assert (model.config.source_vocab, model.config.target_vocab, model.config.dropout) == (VOCAB, VOCAB, 0.1)
    assert (whole / "final/tokenizer.model").read_bytes() == (whole / "data/tokenizer.model").read_bytes()
    assert {t.dtype for t in load_file(whole / "final/model.safetensors").values()} == {torch.float16}
    assert sorted(p.name for p in whole.iterdir()) == ["checkpoints", "data", "final", "log.jsonl", "state"]


def test_the_final_model_is_the_average_of_the_last_checkpoints(whole: Path) -> None:
    paths = sorted((whole / "checkpoints").iterdir())
    assert [p.name for p in paths] == [f"step-{step:08d}.safetensors" for step in (20, 25, 30)]
    last = load_file(paths[-1])
    state = load_file(whole / "state/model.safetensors")
    final = load_file(whole / "final/model.safetensors")
    assert set(last) == set(final)
    for name, tensor in final.items():
        mean = torch.stack([load_file(p)[name].double() for p in paths]).mean(0).half()
        torch.testing.assert_close(tensor, mean, atol=1e-3, rtol=1e-3)
        assert torch.equal(last[name], state[name])


def test_progress_counts_every_update_and_epoch(whole: Path, data: Path, tmp_path: Path) -> None:
    done = progress(whole)
    assert done.step == STEPS
    seen = run(data, tmp_path / "run")
    updates = [entry for entry in seen if "loss" in entry]
    assert [entry["step"] for entry in updates] == list(range(1, STEPS + 1))
    epochs = [entry["epoch"] for entry in updates]
    per_epoch = epochs.count(0)
    assert 2 < per_epoch < STEPS / 2, "the run crosses several epochs"
    assert epochs == sorted(epochs)
    assert done.epoch == epochs[-1]
    assert done.batch == epochs.count(done.epoch)
    rates = [entry["rate"] for entry in updates]
    assert rates == [pytest.approx(learning_rate(recipe().schedule, step)) for step in range(STEPS)]
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_saves_and_resumes_to_the_bit(
    data: Path, whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    work = tmp_path / "run"

    def send(entry: dict[str, Any]) -> None:
        if entry["step"] == (17 if number == signal.SIGTERM else 20):
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"after update (17|20); the same command continues"):
        run(data, work, each=send)
    assert signal.getsignal(number) is before
    assert progress(work).step in (17, 20)
    assert not (work / "final").exists()
    resumed = run(data, work)
    assert resumed[0]["step"] in (18, 21)
    assert_same_run(work, whole)
    assert not leftovers(work)


def test_a_kill_at_any_moment_resumes_to_the_bit(data: Path, whole: Path, tmp_path: Path) -> None:
    """The folder is copied while the run goes on: what a SIGKILL at that moment would have left."""
    copies = [5, 20, STEPS]

    def copy(entry: dict[str, Any]) -> None:
        if entry["step"] in copies:
            shutil.copytree(tmp_path / "run", tmp_path / f"killed-{entry['step']}", dirs_exist_ok=True)

    run(data, tmp_path / "run", recipe(save_minutes=0), each=copy)
    assert_same_run(tmp_path / "run", whole)
    for step in copies:
        killed = tmp_path / f"killed-{step}"
        assert progress(killed).step == step - 1
        # A kill can also cut the line that was being written.
        with (killed / "log.jsonl").open("a") as lines:
            lines.write('{"step": 4')
        # And come while files are staged, by a process whose number the next one does not have.
        shutil.copytree(killed / "state", killed / ".state.0.partial")
        (killed / "checkpoints").mkdir(exist_ok=True)
        (killed / "checkpoints" / ".step-00000005.safetensors.0.partial").write_bytes(b"half")
        # Another program's, in a folder that is not the run's alone.
        (killed / ".film.0.partial").write_bytes(b"theirs")
        run(data, killed)
        assert_same_run(killed, whole)
        assert leftovers(killed) == [".film.0.partial"]


def test_a_finished_run_changes_nothing_when_started_again(data: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    assert run(data, tmp_path / "run") == []
    assert_same_run(tmp_path / "run", whole)


def test_a_finished_run_can_be_lengthened(data: Path, whole: Path, tmp_path: Path) -> None:
    """No batch is skipped or seen twice where the shorter run ended."""
    shorter = recipe(schedule={**recipe().schedule.model_dump(), "steps": 20})
    run(data, tmp_path / "run", shorter)
    run(data, tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)


def test_a_run_shorter_than_its_first_checkpoint(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", recipe(average_every=200, schedule={"steps": 3}))
    final, state = (load_file(tmp_path / f"run/{name}/model.safetensors") for name in ("final", "state"))
    assert all(torch.equal(final[name], state[name].half()) for name in final)


def test_validation_by_translation(data: Path, tmp_path: Path) -> None:
    asked = []

    def score(model: torch.nn.Module, tokenizer: Path, sources: list[str], references: list[str]) -> float:
        asked.append((tokenizer.name, sources, references, model.training))
        return 12.5

    chosen = recipe(schedule={"steps": 6}, validate_every=2, bleu_every=4, bleu_sentences=3)
    train(chosen, data, tmp_path / "run", lambda _: None, lambda _: None, score)
    assert [line.get("bleu") for line in log(tmp_path / "run")] == [None, 12.5, 12.5]
    lines = (data / "dev.tsv").read_text().splitlines()[:3]
    sources, references = ([line.split("\t")[side] for line in lines] for side in (0, 1))
    assert asked == [("tokenizer.model", sources, references, False)] * 2


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"preset": "huge"}, RecipeError, "no preset 'huge'; there are: phone"),
        ({"preset": "wikitext-103-896"}, RecipeError, "is a language model"),
        ({"cleaning": {"max_tokens": 64}}, RecipeError, "max_tokens must be at most 63"),
        ({"train": [{"name": "a", "path": "a.tsv", "repeat": 0.001}]}, CorpusError, "0 batches for 1 processes"),
    ],
)
def test_runs_that_cannot_begin(
    data: Path, tmp_path: Path, changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(data, tmp_path / "run", recipe(**changed))


def test_a_run_that_starts_from_a_model(data: Path, whole: Path, tmp_path: Path) -> None:
    """It goes on from what the model knows, with its tokenizer, whatever the recipe's own would be."""
    changed = {"start": str(whole / "final"), "preset": "unused", "tokenizer": {"vocab": 30}, "dropout": 0.0}
    slow = {"kind": "inverse_sqrt", "peak": 1e-9, "warmup": 1, "steps": 2}
    run(data, tmp_path / "still", recipe(**changed, schedule=slow, validate_every=2))
    assert log(tmp_path / "still")[0]["valid_nll"] == pytest.approx(log(whole)[-1]["valid_nll"], abs=0.2)
    before, after = (load_file(folder / "final/model.safetensors") for folder in (whole, tmp_path / "still"))
    assert set(before) == set(after)
    assert all(torch.allclose(before[name].float(), after[name].float(), atol=1e-3) for name in before)
    assert (tmp_path / "still/final/tokenizer.model").read_bytes() == (whole / "final/tokenizer.model").read_bytes()
    assert load_model(tmp_path / "still/final").config.dropout == 0.0

    fast = {"kind": "inverse_sqrt", "peak": 0.005, "warmup": 2, "steps": 10}
    run(data, tmp_path / "more", recipe(**changed, schedule=fast))
    assert log(tmp_path / "more")[-1]["valid_nll"] < log(whole)[-1]["valid_nll"]


@pytest.mark.parametrize("damage", ["gone", "garbage", "other"])
def test_a_start_without_its_tokenizer(data: Path, whole: Path, tmp_path: Path, damage: str) -> None:
    start = tmp_path / "start"
    shutil.copytree(whole / "final", start)
    (start / "tokenizer.model").unlink()
    if damage == "garbage":
        (start / "tokenizer.model").write_bytes(b"no model")
    elif damage == "other":
        shutil.copy(shipped_model() / "tokenizer.model", start)
    message = {"gone": "no tokenizer.model", "garbage": "no SentencePiece model", "other": "8000 pieces"}[damage]
    with pytest.raises(CheckpointError, match=message):
        run(data, tmp_path / "run", recipe(start=str(start)))
    assert not (tmp_path / "run/data").exists()


def test_an_interrupted_run_from_a_model_goes_on(data: Path, whole: Path, tmp_path: Path) -> None:
    chosen = recipe(start=str(whole / "final"), schedule={"peak": 0.005, "warmup": 2, "steps": 10})
    run(data, tmp_path / "whole", chosen)

    def stop(entry: dict[str, Any]) -> None:
        if entry["step"] == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        run(data, tmp_path / "cut", chosen, stop)
    run(data, tmp_path / "cut", chosen)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "progress.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "garbage"])
def test_a_damaged_state_is_named(data: Path, whole: Path, tmp_path: Path, name: str, damage: str) -> None:
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run/state" / name
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"\x80\x02garbage")
    with pytest.raises(CheckpointError, match="state"):
        run(data, tmp_path / "run")


def test_the_state_of_another_model(data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(whole, tmp_path / "run")
    monkeypatch.setitem(PRESETS, "tiny", Preset(tiny_config("lightweight")))
    with pytest.raises(CheckpointError, match=r"lacks|has shape|does not know"):
        run(data, tmp_path / "run")


# What each of two processes runs: to the end, or first until only one of the two is asked to stop.
TWO_PROCESSES = """
import os, signal, sys
from pathlib import Path
from lite_transformer.config import ModelConfig
from lite_transformer.presets import PRESETS, Preset
from lite_transformer.training.loop import Interrupted, train
from lite_transformer.training.recipe import load_recipe

folder, data, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
PRESETS["tiny"] = Preset(ModelConfig.model_validate_json((folder / "config.json").read_text()))
recipe = load_recipe(folder / "recipe.json")

def stop_me(entry):
    if entry["step"] == 13:
        os.kill(os.getpid(), signal.SIGTERM)

if name == "stopped":
    try:
        train(recipe, data, folder / name, stop_me, lambda _: None)
    except Interrupted as stop:
        (folder / f"stopped-{os.environ['RANK']}").write_text(str(stop))
train(recipe, data, folder / name, lambda _: None, lambda _: None)
"""


def test_two_processes(data: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(TWO_PROCESSES)
    (tmp_path / "config.json").write_text(PRESETS["tiny"].config.model_dump_json())
    (tmp_path / "recipe.json").write_text(recipe().model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(tmp_path / "script.py"), str(tmp_path), str(data)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    names = ("whole", "stopped")
    files = [(tmp_path / f"{name}.txt").open("w") for name in names]
    launched = [
        subprocess.Popen([*command, name], env=environment, stderr=errors)
        for name, errors in zip(names, files, strict=True)
    ]
    try:
        codes = [process.wait(timeout=240) for process in launched]
    finally:
        for process in launched:
            process.terminate()
        for errors in files:
            errors.close()
    assert codes == [0, 0], "".join((tmp_path / f"{name}.txt").read_text() for name in names)
    stops = {(tmp_path / f"stopped-{rank}").read_text() for rank in (0, 1)}
    assert stops == {"stopped after update 13; the same command continues"}
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    curve = log(tmp_path / "whole")
    assert [line["step"] for line in curve] == [10, 20, 30]
    assert curve[-1]["valid_nll"] < curve[0]["valid_nll"] < math.log(VOCAB)
    assert load_model(tmp_path / "whole/final").config.target_vocab == VOCAB
    assert not leftovers(tmp_path)
