"""Checkpoint files made by hand, and one that holds every kind of value torch saves."""

from __future__ import annotations

import argparse
import collections
import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import torch


def archive(content: bytes, **more: bytes) -> bytes:
    """A zip checkpoint around a pickle."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as members:
        members.writestr("model/data.pkl", content)
        for name, data in more.items():
            members.writestr(f"model/{name.replace('__', '/')}", data)
    return stream.getvalue()


def stacked(content: bytes) -> bytes:
    """A checkpoint in the layout before PyTorch 1.6, around a pickle without tensors."""
    stream = io.BytesIO()
    torch.save({}, stream, _use_new_zipfile_serialization=False)
    empty, header, keys = pickle.dumps({}, 2), stream.getvalue(), pickle.dumps([], 2)
    assert header.endswith(empty + keys)
    return header.removesuffix(empty + keys) + content + keys


LAYOUTS: dict[str, Callable[[bytes], bytes]] = {"zip": archive, "stacked": stacked}


def everything() -> dict[str, Any]:
    shared = torch.arange(12.0)
    return {
        "model": collections.OrderedDict(a=shared[2:8].view(2, 3).T, b=shared, tied=shared),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "types": [torch.tensor([1, 0, 3]).to(dtype) for dtype in (*INTEGERS, *FLOATS)],
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
        "args": argparse.Namespace(lr=[0.1], name="größe", inner=argparse.Namespace(a=None)),
        "plain": (1, -(2**40), 2**70, True, None, b"\x00\xff", {"k": [()]}, {3, 4}, 1.5, (1, 2, 3, 4)),
        "size": torch.Size([2, 3]),
        "mention": collections.Counter,
    }


INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
