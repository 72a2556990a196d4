"""Runs whose data, recipe or disk change under them, or that diverge: stopped in time, with the fix in the message."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_training_run import TWO_PROCESSES, assert_same_run, data, log, recipe, run  # noqa: F401  (data is a fixture)

from lite_transformer.checkpoint import CheckpointError
from lite_transformer.presets import PRESETS, Preset
from lite_transformer.training.corpus import CorpusError
from lite_transformer.training.loop import DivergedError
from reference_models import tiny_config

SHORT = {"kind": "inverse_sqrt", "peak": 0.01, "warmup": 2, "steps": 6}


@pytest.fixture(scope="module", autouse=True)
def tiny_preset() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", Preset(tiny_config("dynamic")))
        yield


@pytest.fixture
def own(data: Path, tmp_path: Path) -> Path:  # noqa: F811
    """Data of a test's own, to be changed."""
    return Path(shutil.copytree(data, tmp_path / "own"))


def test_other_data_do_not_slip_under_trained_weights(own: Path, tmp_path: Path) -> None:
    run(own, tmp_path / "run", recipe(schedule=SHORT))
    before = (tmp_path / "run/data/tokenizer.model").read_bytes()
    text = (own / "a.tsv").read_text()
    (own / "a.tsv").write_text(f"{text}one more\tencore une\n")
    longer = {**SHORT, "steps": 8}
    with pytest.raises(
        CorpusError, match=r"was trained on other data \(files changed\): restore them, or name another"
    ):
        run(own, tmp_path / "run", recipe(schedule=longer))
    with pytest.raises(CorpusError, match=r"\(files, seed changed\)"):
        run(own, tmp_path / "run", recipe(schedule=longer, seed=2))
    assert (tmp_path / "run/data/tokenizer.model").read_bytes() == before
    (own / "a.tsv").write_text(text)
    assert [e["step"] for e in run(own, tmp_path / "run", recipe(schedule=longer)) if "loss" in e] == [7, 8]


def test_columns_swapped_in_place_are_seen(own: Path, tmp_path: Path) -> None:
    """The file is as long as before."""
    run(own, tmp_path / "run", recipe(schedule=SHORT))
    swapped = ["\t".join(reversed(line.split("\t"))) for line in (own / "dev.tsv").read_text().splitlines()]
    (own / "dev.tsv").write_text("".join(f"{line}\n" for line in swapped))
    with pytest.raises(CorpusError, match="files changed"):
        run(own, tmp_path / "run", recipe(schedule=SHORT))


def test_data_may_change_where_the_tokenizer_does_not(own: Path, tmp_path: Path) -> None:
    run(own, tmp_path / "first", recipe(schedule=SHORT))
    run(own, tmp_path / "run", recipe(schedule=SHORT, start=str(tmp_path / "first/final")))
    (own / "a.tsv").write_text((own / "b.tsv").read_text())
    more = run(own, tmp_path / "run", recipe(schedule={**SHORT, "steps": 8}, start=str(tmp_path / "first/final")))
    assert [entry["step"] for entry in more if "loss" in entry] == [7, 8]


def test_damaged_prepared_data(data: Path, tmp_path: Path) -> None:  # noqa: F811
    run(data, tmp_path / "run", recipe(schedule=SHORT))
    run(data, tmp_path / "whole", recipe(schedule=SHORT))
    folder = tmp_path / "run/data"
    (folder / "a.npz").write_bytes((folder / "a.npz").read_bytes()[:99])
    with pytest.raises(CorpusError, match=rf"a\.npz is damaged .*: remove {folder}"):
        run(data, tmp_path / "run", recipe(schedule=SHORT))
    (folder / "key.json").write_text("")
    run(data, tmp_path / "run", recipe(schedule=SHORT))
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    ("emptied", "changed", "message"),
    [
        (["dev"], {}, r"dev\.tsv has no pair to validate on: it is empty, or all are over 60 tokens"),
        ([], {"cleaning": {"max_tokens": 1}, "buckets": ()}, r"no pair is left to train on.*max_tokens is 1"),
    ],
)
def test_nothing_to_train_or_validate_on(
    own: Path, tmp_path: Path, emptied: list[str], changed: dict[str, Any], message: str
) -> None:
    for name in emptied:
        (own / f"{name}.tsv").write_text("")
    with pytest.raises(CorpusError, match=message):
        run(own, tmp_path / "run", recipe(**changed))
    assert not (tmp_path / "run/data").exists()


def test_a_run_started_again_is_its_own(data: Path, tmp_path: Path) -> None:  # noqa: F811
    """Whoever removes the state, as its message advises, gets no average with the old run's checkpoints."""
    run(data, tmp_path / "run", recipe(schedule={**SHORT, "steps": 20}, average=2))
    shutil.rmtree(tmp_path / "run/state")
    shorter = recipe(schedule=SHORT, average=2, average_every=3)
    run(data, tmp_path / "run", shorter)
    run(data, tmp_path / "new", shorter)
    assert_same_run(tmp_path / "run", tmp_path / "new")


def test_a_damaged_line_of_the_log_is_left_out(data: Path, tmp_path: Path) -> None:  # noqa: F811
    run(data, tmp_path / "run", recipe(schedule=SHORT, validate_every=2))
    lines = (tmp_path / "run/log.jsonl").read_text().splitlines()
    (tmp_path / "run/log.jsonl").write_text("\n".join(["\0\0\0", lines[0], "[]", lines[1], lines[2]]) + "\n")
    run(data, tmp_path / "run", recipe(schedule=SHORT, validate_every=2))
    assert [entry["step"] for entry in log(tmp_path / "run")] == [2, 4, 6]


def test_a_run_that_diverges_stops_and_keeps_what_was_good(data: Path, tmp_path: Path) -> None:  # noqa: F811
    run(data, tmp_path / "run", recipe(schedule=SHORT))
    wild = recipe(schedule={**SHORT, "peak": 1e30, "steps": 40})
    message = r"gradients are no longer finite\. Lower schedule\.peak.* goes on from update 6"
    with pytest.raises(DivergedError, match=message):
        run(data, tmp_path / "run", wild)
    state = load_file(tmp_path / "run/state/model.safetensors")
    assert all(tensor.isfinite().all() for tensor in state.values())
    tamed = run(data, tmp_path / "run", recipe(schedule={**SHORT, "steps": 8}))
    assert [math.isfinite(entry["loss"]) for entry in tamed if "loss" in entry] == [True, True]


def test_a_changed_preset_is_named_as_such(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    run(data, tmp_path / "run", recipe(schedule=SHORT))
    monkeypatch.setitem(PRESETS, "tiny", Preset(tiny_config("lightweight")))
    with pytest.raises(
        CheckpointError, match="If the recipe changed, restore it or name another --output; else remove"
    ):
        run(data, tmp_path / "run", recipe(schedule=SHORT))


def test_a_changed_weight_decay_counts(data: Path, tmp_path: Path) -> None:  # noqa: F811
    run(data, tmp_path / "run", recipe(schedule=SHORT))
    run(data, tmp_path / "run", recipe(schedule={**SHORT, "steps": 7}, weight_decay=0.25))
    groups = torch.load(tmp_path / "run/state/optimizer.pt", weights_only=True)["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.25]


def test_a_full_disk_is_an_error_of_the_system(data: Path, tmp_path: Path) -> None:  # noqa: F811
    """Its number tells the command line what to say; the writers' own errors would not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    run(data, tmp_path / "run", recipe(schedule=SHORT))
    for name in ("model.safetensors", "optimizer.pt"):
        size = (tmp_path / "run/state" / name).stat().st_size
        kept = (tmp_path / "run/state/progress.json").read_text()
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                run(data, tmp_path / "run", recipe(schedule={**SHORT, "steps": 9}))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert (tmp_path / "run/state/progress.json").read_text() == kept
    signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.rglob("*.partial"))


def test_two_processes_learn_what_one_learns(data: Path, tmp_path: Path) -> None:  # noqa: F811
    """The same pairs of batches as one update, shared out or one after the other: every token weighs the same."""
    changed = {"schedule": SHORT, "dropout": 0.0, "validate_every": 2}
    (tmp_path / "script.py").write_text(TWO_PROCESSES)
    (tmp_path / "config.json").write_text(PRESETS["tiny"].config.model_dump_json())
    (tmp_path / "recipe.json").write_text(recipe(**changed, batch_tokens=400).model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = [str(tmp_path / "script.py"), str(tmp_path), str(data), "whole"]
    subprocess.run([*command, *arguments], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    run(data, tmp_path / "one", recipe(**changed, batch_tokens=200, accumulate=2))
    theirs, ours = (
        [json.loads(line)["valid_nll"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "one")
    )
    assert theirs == pytest.approx(ours, rel=1e-5)
