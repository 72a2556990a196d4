"""Lines in and out: read as they arrive, written so that nothing half-written is left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from itertools import islice
from pathlib import Path
from typing import TextIO

from lite_export.cli.errors import InputError
from lite_transformer.files import staged_file

_BLOCK = 1 << 16


def chunks(stream: BufferedIOBase, name: str, size: int) -> Iterator[list[str]]:
    """Lines of a UTF-8 stream, in lists of at most ``size``, without waiting for lists to fill.

    Args:
        name: what to call the stream in messages.

    Raises:
        InputError: bytes that are not UTF-8; the message has the line.
    """
    number = 0
    for block in _blocks(stream):
        rest = iter(block)
        while chunk := list(islice(rest, size)):
            yield [_decode(line, name, number + i) for i, line in enumerate(chunk, 1)]
            number += len(chunk)


def _blocks(stream: BufferedIOBase) -> Iterator[list[bytes]]:
    """Complete lines, as many as each read brings."""
    # read1 returns what a pipe holds now; iterating over the stream would wait for a full buffer.
    pending: list[bytes] = []
    while block := stream.read1(_BLOCK):
        head, newline, tail = block.rpartition(b"\n")
        if newline:
            yield b"".join([*pending, head]).split(b"\n")
            pending = []
        pending.append(tail)
    if last := b"".join(pending):
        yield [last]


def _decode(line: bytes, name: str, number: int) -> str:
    try:
        return line.removesuffix(b"\r").decode("utf8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}, line {number}: byte {line[error.start]:#04x} at column {error.start + 1} is not UTF-8; "
            f"convert the text first, for example: iconv -f latin1 -t utf8"
        ) from None


def check_output_file(target: Path) -> None:
    """Fail now where ``output_stream`` would after long work; the file's folder is made.

    Raises:
        InputError: it is a folder.
        OSError: its folder cannot be made.
    """
    if target.is_dir():
        raise _a_folder(target)
    target.resolve().parent.mkdir(parents=True, exist_ok=True)


def _a_folder(target: Path) -> InputError:
    return InputError(f"{target} is a folder: name a file to write")


@contextmanager
def output_stream(target: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that appears only when the block ends well."""
    if target is None:
        yield sys.stdout
    elif target.is_dir():
        raise _a_folder(target)
    elif target.exists() and not target.is_file():
        # A pipe or a device is written in place: a rename would replace it.
        with target.open("w", encoding="utf8", newline="\n") as stream:
            yield stream
    else:
        with _staged(target.resolve()) as stream:
            yield stream


@contextmanager
def _staged(target: Path) -> Iterator[TextIO]:
    target.parent.mkdir(parents=True, exist_ok=True)
    with staged_file(target) as staging, staging.open("w", encoding="utf8", newline="\n") as stream:
        yield stream
