"""PyTorch checkpoints from strangers: tensors and plain values are read, nothing is executed.

Two containers: the zip of PyTorch 1.6 and later, and the stacked pickles before it (fairseq 0.8's time).
"""

from __future__ import annotations

import math
import mmap
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lite_transformer.checkpoint import CheckpointError
from lite_transformer.pickle_machine import Global, Record, Stream, UnsafeCheckpoint, checked_key, load

__all__ = ["Global", "Record", "UnsafeCheckpoint", "read_checkpoint"]

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# A storage is a flat tensor; tensors of the file are views of it, so tied weights stay tied.
Storage = Tensor


def read_checkpoint(path: Path) -> Any:
    """The object of a ``torch.save`` file, on the CPU.

    Returns:
        plain values, containers and tensors. A class or function that the file merely mentions is a
        ``Global``; an ``argparse.Namespace`` (and fairseq's meters) a ``Record``.

    Raises:
        UnsafeCheckpoint: the file asks to call anything but a short list of harmless constructors.
        CheckpointError: missing, truncated, damaged, or no checkpoint.
    """
    try:
        return _read(path)
    except UnsafeCheckpoint as error:
        raise UnsafeCheckpoint(f"{path}: {error}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path} is not a readable PyTorch checkpoint: {error}; copy it again") from None
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from None


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(4)
        if not start:
            raise CheckpointError("the file is empty")
        if start == b"PK\x03\x04":
            return _read_zip(path)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return _read_stacked(view)


def _read_zip(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            return _ZipReader(archive, path.stat().st_size).read()
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, OverflowError, struct.error) as error:
        raise CheckpointError(f"damaged zip archive ({error})") from None


class _ZipReader:
    """``NAME/data.pkl`` and, per storage, ``NAME/data/KEY``, all uncompressed."""

    def __init__(self, archive: zipfile.ZipFile, limit: int) -> None:
        self.archive, self.limit = archive, limit
        self.storages: dict[str, Storage] = {}
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise CheckpointError("the zip archive has no data.pkl")
        self.root = pickles[0].removesuffix("data.pkl")

    def read(self) -> Any:
        if f"{self.root}byteorder" in self.archive.namelist() and self.member("byteorder") != b"little":
            raise CheckpointError("big-endian checkpoints are not supported")
        return load(BytesIO(self.member("data.pkl")), _CALLS, self.storage)

    def member(self, name: str) -> bytes:
        try:
            info = self.archive.getinfo(self.root + name)
        except KeyError:
            raise CheckpointError(f"the zip archive lacks {ascii(name)[:80]}") from None
        # torch.save never compresses nor encrypts: a small file cannot unfold into a huge one.
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size > self.limit:
            raise CheckpointError(f"{ascii(name)[:80]} is compressed, encrypted or larger than the file")
        return self.archive.read(info)

    def storage(self, identity: object) -> Storage:
        dtype, key, count = _parse(identity)
        if key not in self.storages:
            data = self.member(f"data/{key}")
            if len(data) != count * dtype.itemsize:
                raise CheckpointError(f"storage {ascii(key)[:80]} has {len(data)} bytes, not {count * dtype.itemsize}")
            self.storages[key] = _flat(data, dtype)
        if self.storages[key].dtype != dtype:
            raise CheckpointError(f"storage {ascii(key)[:80]} is used with two types")
        return self.storages[key]


def _read_stacked(view: mmap.mmap) -> Any:
    """Magic number, protocol, system, object, storage keys: a pickle each; then every storage, raw."""
    if view[257:262] == b"ustar":
        raise CheckpointError("it is a tar archive: extract it, or save it again with a PyTorch newer than 0.2")
    storages: dict[str, Storage] = {}
    budget = len(view)

    def storage(identity: object) -> Storage:
        nonlocal budget
        dtype, key, count = _parse(identity)
        if key not in storages:
            budget -= count * dtype.itemsize
            if budget < 0:
                raise CheckpointError("its storages are larger than the file")
            storages[key] = torch.empty(count, dtype=dtype)
        return storages[key]

    if _plain(view) != _MAGIC or _plain(view) != _PROTOCOL:
        raise CheckpointError("it does not begin as torch.save's files do")
    system = _plain(view)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("big-endian checkpoints are not supported")
    value = load(view, _CALLS, storage)
    for key in _plain(view):
        if key not in storages:
            raise CheckpointError("it has a storage that no tensor uses")
        _fill(storages.pop(key), view)
    if storages:
        raise CheckpointError("it lacks the data of some tensors")
    return value


def _plain(stream: Stream) -> Any:
    """A pickle of plain values."""

    def none(_: object) -> object:
        raise CheckpointError("its header mentions tensors")

    return load(stream, {}, none)


def _fill(storage: Storage, view: mmap.mmap) -> None:
    header = view.read(8)
    if len(header) < 8 or struct.unpack("<q", header)[0] != storage.numel():
        raise CheckpointError("a storage's length is damaged")
    data = view.read(storage.numel() * storage.element_size())
    if len(data) < storage.numel() * storage.element_size():
        raise CheckpointError("it is truncated")
    storage.copy_(_flat(data, storage.dtype))


def _flat(data: bytes, dtype: torch.dtype) -> Storage:
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _parse(identity: object) -> tuple[torch.dtype, str, int]:
    """(dtype, key, elements) of ``("storage", torch.FloatStorage, key, location, elements[, view])``."""
    match identity:
        case ("storage", Global("torch" | "torch.cuda", kind), str(key), str(), int(count), *view) if (
            kind in _DTYPES and 0 <= count < 2**60 and not any(v is not None for v in view)
        ):
            return _DTYPES[kind], key, count
    raise CheckpointError("it holds a kind of storage that is not supported")


# Arguments of the following come from the file: they may be anything.


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> Tensor:
    """What ``torch._utils._rebuild_tensor_v2`` makes, refusing views that leave their storage."""
    if not isinstance(storage, Tensor) or storage.dim() != 1 or not isinstance(size, tuple):
        raise TypeError("a tensor needs a storage and a size")
    # A repeated view could stand for terabytes.
    if math.prod(size) > storage.numel():
        raise ValueError("a tensor larger than its storage")
    try:
        return storage.as_strided(size, stride, offset)
    except RuntimeError as error:
        raise ValueError(f"a tensor outside its storage: {error}") from None


def _parameter(data: Any, *_: object) -> Any:
    return data


def _ordered(items: Any = ()) -> OrderedDict[Any, object]:
    return OrderedDict((checked_key(key), value) for key, value in items)


def _set(items: Any = ()) -> set[Any]:
    return set(map(checked_key, items))


def _encode(text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("bytes in an unknown encoding")
    return text.encode("latin1")


def _device(*_: object) -> str:
    """Where a tensor once lived: of no use here, all are read to the CPU."""
    return "cpu"


def _record(kind: Global) -> Callable[[], Record]:
    return lambda: Record(kind)


# Every call a checkpoint may make, with our own harmless meaning.
_RECORDS = (
    Global("argparse", "Namespace"),
    *(Global("fairseq.meters", name) for name in ("AverageMeter", "TimeMeter", "StopwatchMeter")),
)
_CALLS: dict[Global, Callable[..., object]] = {
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("torch._utils", "_rebuild_tensor"): _tensor,
    Global("torch._utils", "_rebuild_parameter"): _parameter,
    Global("torch", "Size"): tuple,
    Global("torch", "device"): _device,
    Global("collections", "OrderedDict"): _ordered,
    Global("builtins", "set"): _set,
    Global("__builtin__", "set"): _set,
    Global("_codecs", "encode"): _encode,
    **{kind: _record(kind) for kind in _RECORDS},
}
