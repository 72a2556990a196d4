"""Whatever a file holds, reading it ends in a value or in an error of ours that names the file."""

from __future__ import annotations

import pickletools
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoint_files import archive, everything, stacked
from lite_transformer.checkpoint import CheckpointError
from lite_transformer.unpickle import read_checkpoint

QUIET = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def only_our_errors(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        read_checkpoint(path)
    except CheckpointError as error:
        assert str(path) in str(error)


@QUIET
@given(content=st.binary(max_size=400))
def test_random_bytes(tmp_path: Path, content: bytes) -> None:
    only_our_errors(tmp_path / "random.pt", content)
    only_our_errors(tmp_path / "random.pt", archive(content))
    only_our_errors(tmp_path / "random.pt", stacked(content))


# Every instruction there is, names and values that make them bite, and noise.
PARTS = st.one_of(
    st.sampled_from([opcode.code.encode("latin1") for opcode in pickletools.opcodes if opcode.name != "STOP"]),
    st.sampled_from(
        [b"cos\nsystem\n", b"ccollections\nOrderedDict\n", b")R", b"K\x01", b"X\x01\x00\x00\x00a", b"S'\\9'\n"]
    ),
    st.sampled_from([b"q\x00", b"h\x00", b"}", b"(", b"b"]),
    st.binary(max_size=3),
)


@QUIET
@given(parts=st.lists(PARTS, max_size=40))
def test_random_instructions(tmp_path: Path, parts: list[bytes]) -> None:
    only_our_errors(tmp_path / "random.pt", archive(b"\x80\x02" + b"".join(parts) + b"."))


@QUIET
@given(data=st.data(), new=st.booleans())
def test_flipped_bytes_of_a_good_file(tmp_path: Path, data: st.DataObject, new: bool) -> None:
    path = tmp_path / "flipped.pt"
    torch.save(everything(), path, _use_new_zipfile_serialization=new)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    only_our_errors(path, bytes(content))
