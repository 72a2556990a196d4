"""What makes a GPU fast must not change what is learnt: packed batches, few readings, accumulation, half precision."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training_data import CORPORA, token_pairs
from test_training_run import assert_same_run, data, recipe, run  # noqa: F401  (data is a fixture)

from lite_transformer.model import LiteTransformer
from lite_transformer.presets import PRESETS, Preset
from lite_transformer.training import loop
from lite_transformer.training.batches import collate, epoch_batches, tokens_of
from lite_transformer.training.feed import Feed
from lite_transformer.training.loop import Interrupted
from lite_transformer.training.meter import Meter, peak_flops, training_flops
from lite_transformer.training.objective import Objective
from lite_transformer.training.prepare import prepare
from lite_transformer.training.recipe import Recipe, RecipeError, load_recipe
from reference_models import tiny_config
from tiny_models import plain_config

BUCKETS = (6, 8, 12, 61)
PLAIN = plain_config("post").model_copy(update={"max_target": 64})


@pytest.fixture(scope="module", autouse=True)
def tiny_preset() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", Preset(tiny_config("dynamic").model_copy(update={"weight_dropout": 0.1})))
        patch.setitem(PRESETS, "plain", Preset(PLAIN))
        yield


# Packed batches.


@settings(max_examples=60, deadline=None)
@given(lengths=CORPORA, repeat=st.sampled_from([0.4, 1.0, 2.5]), limit=st.integers(16, 120), epoch=st.integers(0, 3))
def test_packed_batches_hold_the_same_sentences_in_few_shapes(
    lengths: list, repeat: float, limit: int, epoch: int
) -> None:
    corpora, buckets = [token_pairs(pairs) for pairs in lengths], (4, 9, 16)
    repeats = [repeat] * len(corpora)
    packed = epoch_batches(corpora, repeats, epoch, 7, limit, buckets)
    plain = epoch_batches(corpora, repeats, epoch, 7, limit)

    def rows(batches: list[np.ndarray]) -> list[list[int]]:
        return sorted(row for batch in batches for row in batch.tolist())

    assert rows(packed) == rows(plain)
    unfilled: dict[int, int] = {}
    for batch in packed:
        made = collate(batch, corpora, tiny_config(), buckets)
        count, length = made.labels.shape
        assert made.source.shape == made.decoder_input.shape == made.labels.shape
        assert length in buckets
        assert count <= max(1, limit // length)
        unfilled[length] = unfilled.get(length, 0) + (count < max(1, limit // length))
        longest = max(len(side) for c, i in batch.tolist() for side in corpora[c].pair(i)) + 1
        assert length == min(b for b in buckets if b >= longest)
        assert tokens_of(batch, corpora) == (int((made.source != 1).sum()), int((made.labels != 1).sum()))
    assert all(count <= 1 for count in unfilled.values()), "one batch a bucket may be smaller"


def test_a_collated_batch() -> None:
    corpora = [token_pairs([(2, 1), (1, 3)])]
    batch = collate(np.array([[0, 0], [0, 1]]), corpora, tiny_config(), (5, 8))
    assert batch.source.tolist() == [[4, 4, 2, 1, 1], [5, 2, 1, 1, 1]]
    assert batch.decoder_input.tolist() == [[2, 4, 1, 1, 1], [2, 5, 5, 5, 1]]
    assert batch.labels.tolist() == [[4, 2, 1, 1, 1], [5, 5, 5, 2, 1]]


# One update of several batches.


def test_processes_and_accumulation_share_out_an_epoch() -> None:
    corpora = [token_pairs([(3, 3)] * 64)]
    chosen = recipe(accumulate=2, batch_tokens=64, train=[{"name": "a", "path": "a.tsv"}])
    whole = epoch_batches(corpora, [1.0], 0, 1, 32)
    feeds = [Feed(chosen, tiny_config(), corpora, 2, rank, pinned=False).updates(0, 1) for rank in (0, 1)]
    updates = [next(feed) for feed in feeds]
    for feed in feeds:
        feed.close()
    seen = [b.source.tolist() for pair in zip(*(u.batches for u in updates), strict=True) for b in pair]
    assert seen == [collate(rows, corpora, tiny_config()).source.tolist() for rows in whole[4:8]]
    assert {(u.epoch, u.number, u.target_tokens) for u in updates} == {(0, 1, 4 * 8 * 4)}


def test_accumulated_batches_are_one_batch(data: Path, tmp_path: Path) -> None:  # noqa: F811
    """Without dropout, two batches an update give the loss of both together."""
    chosen = recipe(accumulate=2, dropout=0.0, schedule={"steps": 1}, preset="plain")
    seen = run(data, tmp_path / "run", chosen)
    torch.manual_seed(chosen.seed)
    config = PLAIN.model_copy(update={"source_vocab": 40, "target_vocab": 40, "dropout": 0.0})
    objective = Objective(LiteTransformer(config), chosen.label_smoothing, "no").train()
    feed = Feed(chosen, config, prepare(chosen, data, tmp_path / "run").corpora, 1, 0, pinned=False).updates(0, 0)
    batches = next(feed).batches
    feed.close()
    assert len(batches) == 2
    losses = [objective(b.source, b.decoder_input, b.labels).item() for b in batches]
    counts = [int((b.labels != 1).sum()) for b in batches]
    assert seen[0]["loss"] == pytest.approx(np.average(losses, weights=counts), rel=1e-6)


# Whole runs.

FAST: dict[str, Any] = {
    "buckets": BUCKETS,
    "log_every": 4,
    "accumulate": 2,
    "precision": "bf16",
    "compile": True,
    "preset": "plain",
}


@pytest.fixture(scope="module")
def fast(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    work = tmp_path_factory.mktemp("fast") / "run"
    seen = run(data, work, recipe(**FAST))
    reported = [entry["step"] for entry in seen if "loss" in entry]
    assert reported == sorted({*range(4, 31, 4), *range(5, 31, 5), 30}), "read every 4 updates, and before every stop"
    return work


@pytest.mark.parametrize("stop", [7, 8, 20])
def test_a_fast_run_resumes_to_the_bit(
    data: Path,  # noqa: F811
    fast: Path,
    tmp_path: Path,
    stop: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped between two readings too: what the meter held is shown, never part of the state."""

    class Stopping(loop._Run):
        def _update(self, update: Any) -> None:
            super()._update(update)
            self.stop_asked = self.progress.step == stop

    work = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_Run", Stopping)
        with pytest.raises(Interrupted, match=f"after update {stop};"):
            run(data, work, recipe(**FAST))
    run(data, work, recipe(**FAST))
    assert_same_run(work, fast)


def test_readings_are_means_and_do_not_change_what_is_learnt(data: Path, tmp_path: Path) -> None:  # noqa: F811
    each = run(data, tmp_path / "each", recipe())
    few = run(data, tmp_path / "few", recipe(log_every=10))
    assert_same_run(tmp_path / "few", tmp_path / "each")
    losses = {entry["step"]: entry["loss"] for entry in each if "loss" in entry}
    before = 0
    for entry in (entry for entry in few if "loss" in entry):
        between = [losses[step] for step in range(before + 1, entry["step"] + 1)]
        assert entry["loss"] == pytest.approx(np.mean(between), rel=1e-5)
        assert entry["tokens_per_second"] > 0
        before = entry["step"]
    assert before == 30


# The meter.


def test_operations_of_training() -> None:
    """Six a weight and token: as many as the linears' Mult-Adds, twice, three times."""
    model = LiteTransformer(plain_config())
    source, target = training_flops(model)
    width, ffn, vocab, layers = 16, 40, 160, 2
    assert source == 6 * layers * (4 * width**2 + 2 * width * ffn + 2 * width**2)
    assert target == 6 * (layers * (4 * width**2 + 2 * width**2 + 2 * width * ffn) + width * vocab)
    meter = Meter(model, peak=1e9)
    meter.add(torch.tensor(2.0), torch.tensor(1.0), 10, 20)
    meter.add(torch.tensor(4.0), torch.tensor(3.0), 10, 20)
    read = meter.read()
    assert (read.loss, read.norm) == (3.0, 3.0)
    assert read.tokens_per_second == pytest.approx(40 / read.seconds)
    assert read.utilisation == pytest.approx((20 * source + 40 * target) / read.seconds / 1e9)
    assert peak_flops(torch.device("cpu")) is None


# Half precision and the compiler.


def _loss_and_gradients(objective: Objective, config: Any, rows: int = 3) -> tuple[float, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randint(4, 40, (rows, 9), generator=generator) for _ in range(2))
    objective.zero_grad()
    loss = objective(source, target, target)
    loss.backward()
    return loss.item(), [p.grad.clone() for p in objective.parameters() if p.grad is not None]


@pytest.mark.parametrize("kind", ["plain", "lightweight", "dynamic"])
def test_half_precision_is_near_and_weights_stay_whole(kind: str) -> None:
    config = plain_config() if kind == "plain" else tiny_config(kind)
    model = LiteTransformer(config)
    whole, half = (_loss_and_gradients(Objective(model, 0.1, precision), config) for precision in ("no", "bf16"))
    assert half[0] != whole[0]
    assert half[0] == pytest.approx(whole[0], rel=0.02)
    assert {g.dtype for g in half[1]} == {torch.float32}


COMPILED = """
import torch
from lite_transformer.config import ModelConfig
from lite_transformer.model import LiteTransformer
from lite_transformer.training.objective import Objective

torch.set_num_threads(1)
config = ModelConfig.model_validate_json(open("config.json").read())
model = LiteTransformer(config)
names = list(model.state_dict())
plain, compiled = Objective(model, 0.1, "bf16"), Objective(model, 0.1, "bf16")
compiled.compile(backend="eager", fullgraph=True)
source, target = torch.randint(4, 40, (3, 9)), torch.randint(4, 40, (3, 9))
losses = []
for objective in (compiled, plain):
    torch.manual_seed(1)
    losses.append(objective(source, target, target))
assert torch.equal(*losses)
assert list(model.state_dict()) == names
assert [name for name, _ in compiled.named_parameters()] == ["model." + n for n, _ in model.named_parameters()]
"""


@pytest.mark.parametrize("kind", ["plain", "dynamic"])
def test_the_compiler_takes_the_objective_as_one_graph(tmp_path: Path, kind: str) -> None:
    """Traced, not compiled: on two CPU cores that takes minutes. In a process of its own, without shape checks."""
    config = plain_config() if kind == "plain" else tiny_config(kind)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    command = [sys.executable, "-c", COMPILED]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiling and asynchronous copies need a CUDA device")
def test_a_compiled_run_on_a_gpu_learns(data: Path, tmp_path: Path) -> None:  # noqa: F811
    run(data, tmp_path / "run", recipe(**FAST))
    curve = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert curve[-1]["valid_nll"] < curve[0]["valid_nll"]
    resumed = recipe(**FAST, schedule={**recipe().schedule.model_dump(), "steps": 35})
    assert [e["step"] for e in run(data, tmp_path / "run", resumed) if "loss" in e][-1] == 35


# Recipes that extend another.


def written(folder: Path, name: str, content: dict[str, Any]) -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder / name


def test_a_recipe_says_only_what_differs(tmp_path: Path) -> None:
    base = recipe(name="base").model_dump(mode="json")
    written(tmp_path, "base.yaml", base)
    own = {"extends": "base.yaml", "name": "own", "schedule": {"steps": 7}, "train": base["train"][:1]}
    found = load_recipe(written(tmp_path, "own.yaml", own))
    schedule = recipe().schedule.model_copy(update={"steps": 7})
    assert found == recipe().model_copy(update={"name": "own", "schedule": schedule, "train": recipe().train[:1]})


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        (3, "must be the name of one recipe file"),
        ("none.yaml", r"cannot read the recipe .*none.yaml"),
        ("second.yaml", "second.yaml, which it extends, must be a whole recipe"),
    ],
)
def test_wrong_extensions(tmp_path: Path, extends: object, message: str) -> None:
    written(tmp_path, "second.yaml", {"extends": "third.yaml"})
    with pytest.raises(RecipeError, match=message):
        load_recipe(written(tmp_path, "own.yaml", {"extends": extends}))


@pytest.mark.parametrize("buckets", [(12, 8, 61), (8, 8, 61), (8, 60)])
def test_wrong_buckets(buckets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="buckets must rise, and the last hold cleaning"):
        recipe(buckets=buckets)


def test_the_models_of_the_table_differ_in_their_preset_alone() -> None:
    configs = Path(__file__).parents[2] / "configs"
    table = [load_recipe(path) for kind in ("lite-*m.yaml", "vanilla-*m.yaml") for path in configs.glob(kind)]
    assert len(table) == 9
    same: Callable[[Recipe], Recipe] = lambda one: one.model_copy(update={"name": "", "preset": ""})  # noqa: E731
    assert all(same(one) == same(table[0]) for one in table)
    assert len({one.preset for one in table}) == 9
