"""The small parts of a run: its folder, its average, its learning rate."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lite_transformer.averaging import average
from lite_transformer.checkpoint import CheckpointError
from lite_transformer.training.recipe import Schedule
from lite_transformer.training.schedule import learning_rate
from lite_transformer.training.store import Progress, RunStore
from reference_models import tiny_config, tiny_model


def test_a_kill_between_the_renames_of_a_save_is_recovered(tmp_path: Path) -> None:
    model = tiny_model(tiny_config())
    optimizer = torch.optim.AdamW(model.parameters())
    store = RunStore(tmp_path)
    store.save_state(model, optimizer, Progress(step=7))
    (tmp_path / "state").rename(tmp_path / ".state.old")
    assert store.load_state(model, optimizer).step == 7


def test_only_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    model = tiny_model(tiny_config())
    for step in (5, 10, 15, 20):
        store.keep(model, step, 2)
    assert [p.name for p in store.kept()] == ["step-00000015.safetensors", "step-00000020.safetensors"]


def test_average(tmp_path: Path) -> None:
    paths = []
    for value in (1.0, 2.0, 6.0):
        paths.append(tmp_path / f"{value}.safetensors")
        save_file({"w": torch.full((2, 3), value), "tiny": torch.tensor([value * 1e-8])}, paths[-1])
    mean = average(paths)
    assert torch.equal(mean["w"], torch.full((2, 3), 3.0))
    torch.testing.assert_close(mean["tiny"], torch.tensor([3e-8]))
    assert {t.dtype for t in mean.values()} == {torch.float32}
    with pytest.raises(CheckpointError, match="no checkpoint to average"):
        average([])
    paths[1].write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="truncated"):
        average(paths)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory as training asks it to")
def test_freed_memory_goes_back() -> None:
    """Holes between what is still in use too; in a process of its own, which forgets the settings with its end."""
    code = """
from pathlib import Path
import torch
from lite_transformer.training.allocator import keep_freed_memory, return_freed_memory
def megabytes(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
keep_freed_memory()
before = megabytes()
blocks = [torch.ones(2**20) for _ in range(200)]
del blocks[::2]
blocks = [b[:1].clone() for b in blocks][:1]
kept = megabytes()
return_freed_memory()
print(kept - before, megabytes() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, returned = map(float, done.stdout.split())
    assert kept > 400
    assert returned < kept / 4


def test_the_cosine_schedule() -> None:
    schedule = Schedule(kind="cosine", peak=1e-3, floor=1e-5, warmup=10, steps=110)
    rates = [learning_rate(schedule, step) for step in range(130)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == pytest.approx(1e-3)
    assert rates[60] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates[110:] == [pytest.approx(1e-5)] * 20
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_the_inverse_square_root_schedule() -> None:
    schedule = Schedule(kind="inverse_sqrt", peak=5e-4, warmup=100, steps=1000)
    assert learning_rate(schedule, 49) == pytest.approx(2.5e-4)
    assert learning_rate(schedule, 99) == pytest.approx(5e-4)
    assert learning_rate(schedule, 399) == pytest.approx(2.5e-4)
    assert learning_rate(schedule.model_copy(update={"warmup": 0}), 0) == pytest.approx(5e-4)
