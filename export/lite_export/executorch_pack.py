"""A ``.pte`` in which every run of bytes is stored once.

XNNPACK's weights are segments of their own, the interpreter's constants lie together in one segment. A table that the
interpreter looks up and XNNPACK multiplies with is thus written twice. A segment is no more than an offset and a
size, so both may point at the same bytes: the constants' segment then spans what XNNPACK shares with it.

1. read the program and its segments  2. lay the constants side by side, and all else before them
3. let a segment that equals a constant point into the constants  4. write the program with the new offsets
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from executorch.exir._serialize._flatbuffer_program import _flatbuffer_to_program, _program_to_flatbuffer
from executorch.exir._serialize._program import _ExtendedHeader, _get_extended_header, _insert_flatbuffer_header
from executorch.exir.scalar_type import ScalarType
from executorch.exir.schema import Program, Tensor

# What XNNPACK asks of its weights; the interpreter asks for no more.
_ALIGNMENT = 16
_HEADER_BYTES = _ExtendedHeader.EXPECTED_LENGTH
_BYTES = {
    ScalarType.FLOAT: 4,
    ScalarType.LONG: 8,
    ScalarType.INT: 4,
    ScalarType.DOUBLE: 8,
    ScalarType.SHORT: 2,
    ScalarType.HALF: 2,
    ScalarType.CHAR: 1,
    ScalarType.BYTE: 1,
    ScalarType.BOOL: 1,
}


@dataclass
class _Pool:
    """Bytes laid out one after another, each content once."""

    data: bytearray = field(default_factory=bytearray)
    places: dict[bytes, int] = field(default_factory=dict)

    def place(self, content: bytes) -> int:
        """Where ``content`` lies, after it was added if it was new."""
        if content not in self.places:
            self.align()
            self.places[content] = len(self.data)
            self.data += content
        return self.places[content]

    def align(self) -> None:
        self.data += bytes(-len(self.data) % _ALIGNMENT)


def read_program(content: bytes) -> tuple[Program, bytes]:
    """A ``.pte``'s program, and the segments that follow it."""
    header = _get_extended_header(content)
    assert header is not None, "lowered programs have segments"
    return _flatbuffer_to_program(content[: header.program_size]), content[header.segment_base_offset :]


def share_bytes(content: bytes) -> bytes:
    """The same program with nothing stored twice."""
    program, stored = read_program(content)
    segments = [stored[s.offset : s.offset + s.size] for s in program.segments]
    home = program.constant_segment.segment_index
    constants = dict(_constants(program, segments[home]))
    shared = set(constants.values())
    pool = _Pool()
    for index, segment in enumerate(segments):
        if index != home and segment not in shared:
            program.segments[index].offset = pool.place(segment)
    pool.align()
    start = len(pool.data)
    # Constants of their own, even where the bytes before have them: their segment has to span them.
    inner = _Pool()
    for number, constant in constants.items():
        program.constant_segment.offsets[number] = inner.place(constant)
    for index, segment in enumerate(segments):
        if index != home and segment in shared:
            program.segments[index].offset = start + inner.place(segment)
    program.segments[home].offset, program.segments[home].size = start, len(inner.data)
    return _written(program, bytes(pool.data + inner.data))


def _constants(program: Program, segment: bytes) -> Iterator[tuple[int, bytes]]:
    """The interpreter's constants by number; number 0 stands for none."""
    offsets = program.constant_segment.offsets
    for plan in program.execution_plan:
        for value in plan.values:
            tensor = value.val
            if isinstance(tensor, Tensor) and tensor.data_buffer_idx > 0 and tensor.allocation_info is None:
                start = offsets[tensor.data_buffer_idx]
                yield tensor.data_buffer_idx, segment[start : start + prod(tensor.sizes) * _BYTES[tensor.scalar_type]]


def _written(program: Program, segments: bytes) -> bytes:
    """A program and its segments as a file."""
    flat = _program_to_flatbuffer(program)
    length = -(-_HEADER_BYTES // flat.max_alignment) * flat.max_alignment
    size = length + len(flat.data)
    base = size + -size % _ALIGNMENT
    header = _ExtendedHeader(program_size=size, segment_base_offset=base, segment_data_size=len(segments)).to_bytes()
    head = _insert_flatbuffer_header(flat.data, r"ET[0-9a-zA-Z][0-9a-zA-Z]", header.ljust(length, b"\0"))
    return head + bytes(base - size) + segments
