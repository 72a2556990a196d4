"""XNNPACK's graph inside a ``.pte``: read, rewritten, written back.

Its schema comes with ExecuTorch. As JSON it is lists of ``xnodes``, ``xvalues`` and ``constant_data``, where values
are known by number (``id_out``), and constants by their place in a list that names ExecuTorch's named data.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader, _get_schema_bytes
from executorch.exir._serialize._flatbuffer import _flatc_compile, _flatc_decompile

# A constant that lies in named data has no offset.
_ELSEWHERE = 2**64 - 1
_NO_VALUE = 2**32 - 1
_ALIGNMENT = 16
Json = dict[str, Any]


class XnnpackGraph:
    """One delegate's graph."""

    def __init__(self, payload: bytes) -> None:
        header = XNNHeader.from_bytes(payload[: XNNHeader.EXPECTED_LENGTH])
        self.content = _read(payload[header.flatbuffer_offset : header.flatbuffer_offset + header.flatbuffer_size])
        self.values = {_tensor(value)["id_out"]: value for value in self.content["xvalues"]}

    def payload(self) -> bytes:
        """The graph as the delegate takes it."""
        flat = _written({**self.content, "xvalues": list(self.values.values())})
        start = _aligned(XNNHeader.EXPECTED_LENGTH)
        end = start + _aligned(len(flat))
        header = XNNHeader(
            flatbuffer_offset=start, flatbuffer_size=len(flat), constant_data_offset=end, constant_data_size=0
        ).to_bytes()
        return (header.ljust(start, b"\0") + flat).ljust(end, b"\0")

    def key(self, value: int) -> str:
        """The name of a constant's data; empty where the value is no constant."""
        return self.content["constant_data"][_tensor(self.values[value])["constant_buffer_idx"]]["named_key"]

    def dims(self, value: int) -> list[int]:
        """A value's shape, dynamic sizes at their most."""
        return _tensor(self.values[value])["dims"]

    def keys(self) -> set[str]:
        """Every name a value or a scale refers to."""
        return {entry["named_key"] for entry in self.content["constant_data"]}

    def hold(self, key: str, size: int) -> int:
        """Refer to named data of that many bytes."""
        self.content["constant_data"].append({"offset": _ELSEWHERE, "size": size, "named_key": key})
        return len(self.content["constant_data"]) - 1

    def quantize(self, datatype: str, value: int, constant: int, kind: str, parameters: Json) -> Json:
        """A description of ``value``, of the same shape, in fewer bits."""
        old = _tensor(self.values[value])
        tensor = {**old, "datatype": datatype, "constant_buffer_idx": constant, "external_id": _NO_VALUE, "flags": 0}
        return {
            "xvalue_union_type": "XNNQuantizedTensorValue",
            "xvalue_union": {"tensor_value": tensor, "quant_params_type": kind, "quant_params": parameters},
        }

    def add(self, value: Json) -> int:
        """A further value; its number."""
        number = max(self.values) + 1
        _tensor(value)["id_out"] = number
        self.values[number] = value
        return number

    def drop_unused_constants(self) -> None:
        """Forget named data that no value refers to any more, and number the rest anew."""
        used = sorted({0} | {buffer for value in self.values.values() for buffer in _buffers(value)})
        numbers = {old: new for new, old in enumerate(used)}
        for value in self.values.values():
            _tensor(value)["constant_buffer_idx"] = numbers[_tensor(value)["constant_buffer_idx"]]
            parameters = value["xvalue_union"].get("quant_params", {})
            if "scale_buffer_idx" in parameters:
                parameters["scale_buffer_idx"] = numbers[parameters["scale_buffer_idx"]]
        self.content["constant_data"] = [self.content["constant_data"][old] for old in used]


def _tensor(value: Json) -> Json:
    union = value["xvalue_union"]
    return union.get("tensor_value", union)


def _buffers(value: Json) -> list[int]:
    parameters = value["xvalue_union"].get("quant_params", {})
    return [_tensor(value)["constant_buffer_idx"], parameters.get("scale_buffer_idx", 0)]


def _aligned(size: int) -> int:
    return size + -size % _ALIGNMENT


def _read(flat: bytes) -> Json:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "schema.fbs").write_bytes(_get_schema_bytes())
        (folder / "graph.bin").write_bytes(flat)
        _flatc_decompile(name, str(folder / "schema.fbs"), str(folder / "graph.bin"), ["--raw-binary"])
        # An open bound of a clamp, which JSON has no word for.
        text = re.sub(r'(":\s*-?)inf\b', r"\1Infinity", (folder / "graph.json").read_text("utf8"))
        return json.loads(text)


def _written(content: Json) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "schema.fbs").write_bytes(_get_schema_bytes())
        (folder / "graph.json").write_text(json.dumps(content), "utf8")
        _flatc_compile(name, str(folder / "schema.fbs"), str(folder / "graph.json"))
        return next(path for path in folder.iterdir() if path.suffix not in (".fbs", ".json")).read_bytes()
