"""Finished blocks, kept as they come: a measurement that broke off goes on where it was."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from lite_runtime.bench_result import BenchError, Block
from lite_runtime.manifest import Part


class Header(Part):
    """The journal's first line: whose blocks follow (``Plan.fingerprint``), and when it was begun."""

    plan: str
    started: str


class Journal:
    """A file of one JSON a line: the header, then a block each, on the disk before the next one starts.

    There is no file before the first block. ``session`` is what new blocks carry: how often the measurement was
    resumed.
    """

    def __init__(self, path: Path, header: Header, blocks: list[Block]) -> None:
        self.path, self.header, self.blocks = path, header, blocks
        self.session = 1 + max((block.session for block in blocks), default=-1)

    def append(self, block: Block) -> None:
        """Keep a block."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _write_line(self.path, self.header)
        self.blocks.append(block)
        _write_line(self.path, block)

    def remove(self) -> None:
        """Its blocks are in the result now."""
        self.path.unlink()


def open_journal(path: Path, header: Header, resume: bool) -> Journal:
    """A new journal, or the one that is there.

    Args:
        header: of this measurement; a journal that is resumed keeps the time at which it was begun.

    Raises:
        BenchError: there is one and it is not to be resumed, none to resume, or it belongs to another measurement.
    """
    if resume:
        return _reopen(path, header)
    if path.exists():
        raise BenchError(f"{path} holds an unfinished measurement: go on with --resume, or delete it")
    return Journal(path, header, [])


def _reopen(path: Path, wanted: Header) -> Journal:
    if not path.is_file():
        raise BenchError(f"nothing to resume: there is no {path}; leave out --resume, or name the same --output")
    content = path.read_bytes()
    # A line without its end was being written when the power went.
    whole = content[: content.rfind(b"\n") + 1]
    try:
        first, *rest = whole.splitlines()
        header, blocks = Header.model_validate_json(first), [Block.model_validate_json(line) for line in rest]
    except (ValueError, ValidationError):
        raise BenchError(f"{path} is damaged or was written by another version: delete it and measure again") from None
    if header.plan != wanted.plan:
        raise BenchError(
            f"{path} is of other bundles, options or another device: repeat the command that began it, or delete it"
        )
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return Journal(path, header, blocks)


def _write_line(path: Path, line: Header | Block) -> None:
    with path.open("ab") as stream:
        stream.write(line.model_dump_json().encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
