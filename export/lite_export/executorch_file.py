"""A ``.pte`` taken apart and put together again, every run of bytes stored once.

ExecuTorch writes XNNPACK's weights as segments of their own and the interpreter's constants together in another. A
table that the interpreter looks up and XNNPACK multiplies with is thus written twice. But a segment is no more than
an offset and a size, so both may name the same bytes: here the constants come last, and whatever segment equals one
of them points into them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from executorch.exir._serialize._flatbuffer_program import _flatbuffer_to_program, _program_to_flatbuffer
from executorch.exir._serialize._program import _ExtendedHeader, _get_extended_header, _insert_flatbuffer_header
from executorch.exir.scalar_type import ScalarType
from executorch.exir.schema import BackendDelegate, DataSegment, NamedData, Program, SubsegmentOffsets, Tensor

# What XNNPACK asks of its weights; the interpreter asks for no more.
_ALIGNMENT = 16
_BYTES = {
    ScalarType.FLOAT: 4,
    ScalarType.LONG: 8,
    ScalarType.INT: 4,
    ScalarType.DOUBLE: 8,
    ScalarType.CHAR: 1,
    ScalarType.BYTE: 1,
    ScalarType.BOOL: 1,
}


@dataclass
class ProgramFile:
    """What a ``.pte`` holds.

    Attributes:
        program: methods, their values and instructions; its offsets mean nothing while it is taken apart.
        constants: the interpreter's, by the number its tensors give; number 0 stands for none.
        weights: XNNPACK's, by key.
        payloads: of each method's delegates, in order: XNNPACK's graphs.
    """

    program: Program
    constants: dict[int, bytes]
    weights: dict[str, bytes]
    payloads: dict[str, list[bytes]]

    @classmethod
    def read(cls, content: bytes) -> ProgramFile:
        """Take a file apart."""
        header = _get_extended_header(content)
        assert header is not None, "lowered programs have segments"
        program = _flatbuffer_to_program(content[: header.program_size])
        base = header.segment_base_offset
        segments = [content[base + s.offset : base + s.offset + s.size] for s in program.segments]
        assert not program.mutable_data_segments, "buffers start empty"
        home = segments[program.constant_segment.segment_index]
        return cls(
            program,
            dict(_constants(program, home)),
            {data.key: segments[data.segment_index] for data in program.named_data or []},
            {p.name: [segments[d.processed.index] for d in p.delegates] for p in program.execution_plan},
        )

    def write(self) -> bytes:
        """The file."""
        before, shared, ends = _Pool(), _Pool(), max(self.constants, default=0) + 1
        offsets = [0] * ends
        for number, constant in self.constants.items():
            offsets[number] = shared.place(constant)
        # Each with its pool, as the constants' place is known only when all before them is there.
        placed = [(shared if data in shared.places else before, data) for data in self._segments()]
        at = [(pool, pool.place(data), len(data)) for pool, data in placed]
        start = before.end()
        self.program.segments = [DataSegment(start * (pool is shared) + offset, size) for pool, offset, size in at]
        self.program.segments.append(DataSegment(start, len(shared.data)))
        self.program.constant_segment = SubsegmentOffsets(len(at), offsets)
        return _joined(self.program, bytes(before.data + shared.data))

    def _segments(self) -> Iterator[bytes]:
        """Payloads and weights, and lets the program name them by their order."""
        names = {key: number for number, key in enumerate(self.weights)}
        self.program.named_data = [NamedData(key, number) for key, number in names.items()]
        yield from self.weights.values()
        number = len(names)
        for plan in self.program.execution_plan:
            for delegate, payload in zip(plan.delegates, self.payloads[plan.name], strict=True):
                _point(delegate, number)
                number += 1
                yield payload


@dataclass
class _Pool:
    """Bytes laid out one after another, each content once."""

    data: bytearray = field(default_factory=bytearray)
    places: dict[bytes, int] = field(default_factory=dict)

    def place(self, content: bytes) -> int:
        """Where ``content`` lies, after it was added if it was new."""
        if content not in self.places:
            self.places[content] = self.end()
            self.data += content
        return self.places[content]

    def end(self) -> int:
        self.data += bytes(-len(self.data) % _ALIGNMENT)
        return len(self.data)


def _point(delegate: BackendDelegate, segment: int) -> None:
    delegate.processed.index = segment


def _constants(program: Program, segment: bytes) -> Iterator[tuple[int, bytes]]:
    for plan in program.execution_plan:
        for value in plan.values:
            tensor = value.val
            if isinstance(tensor, Tensor) and tensor.data_buffer_idx > 0 and tensor.allocation_info is None:
                start = program.constant_segment.offsets[tensor.data_buffer_idx]
                yield tensor.data_buffer_idx, segment[start : start + prod(tensor.sizes) * _BYTES[tensor.scalar_type]]


def _joined(program: Program, segments: bytes) -> bytes:
    """A program and its segments as a file."""
    flat = _program_to_flatbuffer(program)
    header_size = _ExtendedHeader.EXPECTED_LENGTH + -_ExtendedHeader.EXPECTED_LENGTH % flat.max_alignment
    size = header_size + len(flat.data)
    base = size + -size % _ALIGNMENT
    header = _ExtendedHeader(program_size=size, segment_base_offset=base, segment_data_size=len(segments)).to_bytes()
    head = _insert_flatbuffer_header(flat.data, r"ET[0-9a-zA-Z][0-9a-zA-Z]", header.ljust(header_size, b"\0"))
    return head + bytes(base - size) + segments
