"""Untrusted checkpoints: read where harmless, refused where they ask for code, never anything else."""

from __future__ import annotations

import collections
import functools
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from checkpoint_files import LAYOUTS, archive, everything, stacked
from lite_transformer.checkpoint import CheckpointError
from lite_transformer.unpickle import Global, Record, UnsafeCheckpoint, read_checkpoint
from reference_models import GOLDEN

FAIRSEQ = GOLDEN / "mt_lightweight.fairseq_style.pt"


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class Restores:
    """Pickles as a new object whose state is then set."""

    def __setstate__(self, state: object) -> None:
        raise AssertionError("was run")

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}


def attacks(mark: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles that would create ``mark``, and the name each must be refused by."""
    touch = f"open({str(mark)!r}, 'w').close()"
    return {
        "system": (pickle.dumps(Calls(os.system, f"touch {mark}"), 2), r"posix\.system"),
        "system-text": (pickle.dumps(Calls(os.system, f"touch {mark}"), 0), r"posix\.system"),
        "system-new": (pickle.dumps(Calls(os.system, f"touch {mark}"), 4), r"posix\.system"),
        "eval": (pickle.dumps(Calls(eval, touch), 2), r"__builtin__\.eval"),
        "exec": (pickle.dumps([1, {"a": Calls(exec, touch)}], 4), r"builtins\.exec"),
        "popen": (pickle.dumps(Calls(subprocess.Popen, ["touch", str(mark)]), 4), r"subprocess\.Popen"),
        "partial": (pickle.dumps(functools.partial(open, str(mark), "w"), 2), r"functools\.partial"),
        "text": (b"cos\nsystem\n(S'x'\ntR.", r"os\.system"),
        "inst": (f"(S'touch {mark}'\nios\nsystem\n.".encode(), r"os\.system"),
        "obj": (f"(cos\nsystem\nS'touch {mark}'\no.".encode(), r"os\.system"),
        "newobj": (pickle.dumps(Restores(), 2), r"test_unpickle\.Restores"),
        "dotted": (b"\x80\x04\x8c\x02os\x8c\x0bpath.system\x93\x8c\x01x\x85R.", r"os\.path\.system"),
        "build": (b"\x80\x02cos\nsystem\n}b.", r"set the state of os\.system"),
        "extension": (b"\x80\x02\x82\x01.", "EXT1"),
        "keywords": (b"\x80\x04\x8c\x08argparse\x8c\x09Namespace\x93)}\x8c\x01aK\x01s\x92.", "keywords"),
        "terminal": (b"c\x1b[31mos\nsystem\n)R.", r"\\x1b\[31mos\.system"),
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("attack", list(attacks(Path("x"))))
def test_code_is_refused_and_not_run(tmp_path: Path, layout: str, attack: str) -> None:
    mark = tmp_path / "was-run"
    content, name = attacks(mark)[attack]
    path = tmp_path / "bad.pt"
    path.write_bytes(LAYOUTS[layout](content))
    with pytest.raises(UnsafeCheckpoint, match=f"{name}.*nothing was run") as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert not mark.exists()


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """Python's own unpickler runs them: the tests above refuse something that works."""
    mark = tmp_path / "was-run"
    for name in ("system", "eval", "inst"):
        pickle.loads(attacks(mark)[name][0])
        assert mark.exists()
        mark.unlink()


def test_a_bare_pickle_that_calls_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    path = tmp_path / "bad.pt"
    path.write_bytes(attacks(mark)["system"][0])
    with pytest.raises(UnsafeCheckpoint, match=r"posix\.system"):
        read_checkpoint(path)
    assert not mark.exists()


def test_the_authors_style_of_checkpoint() -> None:
    """Written by the original's save_state; its Namespace mentions a function of fairseq, which is absent."""
    assert "fairseq" not in sys.modules
    content = read_checkpoint(FAIRSEQ)
    arguments = content["args"]
    assert isinstance(arguments, Record)
    assert arguments.kind == Global("argparse", "Namespace")
    assert arguments.fields["encoder_embed_dim"] == 40
    mentioned = [value for value in arguments.fields.values() if isinstance(value, Global)]
    assert mentioned == [Global("fairseq.models.transformer_multibranch_v2", "ratio_xavier_uniform_")]
    expected = load_file(GOLDEN / "mt_lightweight.state_dict.safetensors")
    assert set(expected) <= set(content["model"])
    for name, tensor in expected.items():
        # The original leaves this placeholder of a device uninitialised.
        if not name.endswith("_float_tensor"):
            assert torch.equal(content["model"][name], tensor), name


@pytest.mark.parametrize("new", [True, False])
def test_what_torch_saves_is_read_back(tmp_path: Path, new: bool) -> None:
    path = tmp_path / "good.pt"
    expected = everything()
    torch.save(expected, path, _use_new_zipfile_serialization=new)
    content = read_checkpoint(path)
    assert isinstance(content["model"], collections.OrderedDict)
    for name, tensor in expected["model"].items():
        assert torch.equal(content["model"][name], tensor)
    assert content["model"]["tied"].data_ptr() == content["model"]["b"].data_ptr()
    assert torch.equal(content["parameter"], torch.ones(2))
    for ours, theirs in zip(content["types"], expected["types"], strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    assert torch.equal(content["scalar"], torch.tensor(2.5))
    assert content["empty"].shape == (0, 4)
    assert content["args"].fields["name"] == "größe"
    assert content["args"].fields["inner"].fields == {"a": None}
    assert content["plain"] == expected["plain"]
    assert content["size"] == (2, 3)
    assert content["mention"] == Global("collections", "Counter")


@pytest.mark.parametrize("new", [True, False])
def test_a_real_model_and_optimizer(tmp_path: Path, new: bool) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "run.pt"
    torch.save({"m": model.state_dict(), "o": optimizer.state_dict()}, path, _use_new_zipfile_serialization=new)
    content = read_checkpoint(path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(content["m"][name], tensor)
    assert torch.equal(content["o"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


def test_fairseq_meters_are_records(tmp_path: Path) -> None:
    path = tmp_path / "meters.pt"
    path.write_bytes(archive(b"\x80\x02cfairseq.meters\nAverageMeter\n)\x81}X\x03\x00\x00\x00avgK\x05sb."))
    meter = read_checkpoint(path)
    assert meter.kind == Global("fairseq.meters", "AverageMeter")
    assert meter.fields == {"avg": 5}


@pytest.mark.parametrize("size", [0, 1, 3, 4, 100, 5000, 100_000, -100, -1])
def test_truncated_files(tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.pt"
    path.write_bytes(FAIRSEQ.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"cut\.pt is not a readable PyTorch checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95, 0.999])
def test_truncated_stacked_files(tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.pt"
    torch.save(everything(), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"cut\.pt is not a readable PyTorch checkpoint"):
        read_checkpoint(path)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read the checkpoint .*No such file"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match=r"cannot read the checkpoint .*directory"):
        read_checkpoint(tmp_path)


TENSOR = (
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
)
TENSOR += b"X\x03\x00\x00\x00cpu%btQ%b%b%b\x89NtR."


def tensor_pickle(
    count: bytes = b"K\x02", offset: bytes = b"K\x00", size: bytes = b"K\x02\x85", step: bytes = b"K\x01\x85"
) -> bytes:
    return TENSOR % (count, offset, size, step)


def test_the_hand_made_tensor_is_a_good_one(tmp_path: Path) -> None:
    path = tmp_path / "tensor.pt"
    path.write_bytes(archive(tensor_pickle(), data__0=struct.pack("<2f", 3, 4)))
    assert torch.equal(read_checkpoint(path), torch.tensor([3.0, 4.0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": b"K\x03"}, "has 8 bytes, not 12"),
        ({"count": b"J\xff\xff\xff\xff"}, "kind of storage"),
        ({"offset": b"K\x01"}, "outside its storage"),
        ({"offset": b"J\xff\xff\xff\xff"}, "outside its storage"),
        ({"size": b"K\x03\x85"}, "larger than its storage"),
        # A step of nought would make one number stand for terabytes.
        ({"size": b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x10\x85", "step": b"K\x00\x85"}, "larger than its storage"),
        ({"step": b"K\x02\x85"}, "outside its storage"),
        ({"step": b"J\xff\xff\xff\xff\x85"}, "outside its storage"),
        ({"step": b")"}, "outside its storage"),
        ({"size": b"X\x01\x00\x00\x00a\x85"}, "damaged pickle"),
        ({"size": b"K\x02"}, "damaged pickle"),
    ],
)
def test_a_tensor_must_lie_in_its_storage(tmp_path: Path, change: dict[str, bytes], message: str) -> None:
    path = tmp_path / "tensor.pt"
    path.write_bytes(archive(tensor_pickle(**change), data__0=struct.pack("<2f", 3, 4)))
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_a_small_file_cannot_unfold_into_a_large_one(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("model/data.pkl", b"\x80\x02N." + b"0" * 10_000_000)
    with pytest.raises(CheckpointError, match="compressed, encrypted or larger"):
        read_checkpoint(path)
    content = stacked(tensor_pickle(count=b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x0f").replace(b"tQ", b"NtQ"))
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="larger than the file"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(b"\x80\x02}", other=b""), "no end|exhausted"),
        (b"PK\x03\x04" + b"\x00" * 40, "zip archive"),
        (b"ustar".rjust(262, b"\x00").ljust(1024, b"\x00"), "tar archive"),
        (pickle.dumps({"model": 1}), "does not begin as torch.save"),
        (b"\x89HDF\r\n\x1a\n" + b"\x00" * 50, "not a readable PyTorch checkpoint"),
        (archive(b"\x80\x02\x85\x85\x85."), "damaged pickle"),
        (archive(b"\x80\x02}]K\x01s."), "list as a key"),
        (archive(b"\x80\x02K\x01Q."), "kind of storage"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)
