"""What a test phone does for adb: ``shell:`` and ``exec:`` run commands, ``sync:`` lists, takes and gives files."""

from __future__ import annotations

import os
import signal
import stat
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from devices.adb_daemon import Daemon, Stream

# Packets of the shell protocol, version 2.
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_BLOCK = 64 * 1024
_ENVIRONMENT = {"PATH": "/system/bin:/usr/bin:/bin", "TMPDIR": "/data/local/tmp", "HOME": "/", "LANG": "C.UTF-8"}


def serve_shell(stream: Stream, daemon: Daemon, command: str, second_version: bool) -> None:
    """Run a command; stdout, stderr and the exit code go back apart (version 2), or mixed, without the last."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", command],
        env=_ENVIRONMENT,
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if second_version else subprocess.STDOUT,
        start_new_session=True,
    )
    watch = _pull_the_cable_later(daemon, command)
    writing = threading.Lock()

    def carry(pipe: IO[bytes], kind: int) -> None:
        while block := os.read(pipe.fileno(), _BLOCK):
            with writing:
                stream.write(struct.pack("<BI", kind, len(block)) + block if second_version else block)

    pipes = [(process.stdout, _STDOUT), (process.stderr, _STDERR)]
    carriers = [_in_background(carry, pipe, kind) for pipe, kind in pipes if pipe is not None]
    _in_background(_feed, stream, process, second_version)
    for carrier in carriers:
        carrier.join()
    code = process.wait()
    watch.cancel()
    if second_version:
        stream.write(struct.pack("<BIB", _EXIT, 1, code if code >= 0 else 128 - code))


def _pull_the_cable_later(daemon: Daemon, command: str) -> threading.Timer:
    """The fault ``vanish_after_running``: only commands run as a Device's, which note their process ids, count."""
    seconds = daemon.faults.vanish_after_running
    timer = threading.Timer(seconds or 0.0, daemon.unplug)
    timer.daemon = True
    if seconds is not None and "& child=$!" in command:
        timer.start()
    return timer


def _in_background(work: Callable[..., None], *arguments: object) -> threading.Thread:
    def quietly() -> None:
        try:
            work(*arguments)
        except (EOFError, OSError, ValueError):
            return

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    return thread


def _feed(stream: Stream, process: subprocess.Popen[bytes], second_version: bool) -> None:
    """Carry standard input; when the connection is cut, hang up as adbd does: on the shell alone."""
    assert process.stdin is not None
    try:
        while True:
            kind, size = struct.unpack("<BI", stream.read(5)) if second_version else (_STDIN, 1)
            data = stream.read(size)
            if kind == _STDIN:
                process.stdin.write(data)
                process.stdin.flush()
            elif kind == _CLOSE_STDIN:
                process.stdin.close()
    except EOFError:
        if process.poll() is None:
            process.send_signal(signal.SIGHUP)


def serve_sync(stream: Stream, daemon: Daemon) -> None:
    """Requests until QUIT: four letters, a size, a path."""
    services = {b"STAT": _stat, b"LIST": _list, b"SEND": _send, b"RECV": _receive}
    while True:
        request, size = struct.unpack("<4sI", stream.read(8))
        argument = stream.read(size).decode()
        if request == b"QUIT":
            return
        try:
            services[request](stream, daemon, argument)
        except OSError as error:
            reason = (error.strerror or str(error)).encode()
            stream.write(b"FAIL" + struct.pack("<I", len(reason)) + reason)


def _stat(stream: Stream, daemon: Daemon, path: str) -> None:
    found = Path(path).lstat() if os.path.lexists(path) else None
    mode, size, time = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime)) if found else (0, 0, 0)
    stream.write(b"STAT" + struct.pack("<3I", mode, size, time))


def _list(stream: Stream, daemon: Daemon, path: str) -> None:
    for entry in sorted(Path(path).iterdir()) if Path(path).is_dir() else []:
        found, name = entry.lstat(), entry.name.encode()
        numbers = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime), len(name))
        stream.write(b"DENT" + struct.pack("<4I", *numbers) + name)
    stream.write(b"DONE" + bytes(16))


def _send(stream: Stream, daemon: Daemon, argument: str) -> None:
    """Take one file. A failure is told only after all of it was read, as adb expects."""
    path, _, mode = argument.rpartition(",")
    failure: OSError | None = None
    data = b""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        target: IO[bytes] = open(path, "wb", buffering=0)  # noqa: SIM115
    except OSError as error:
        failure, target = error, open(os.devnull, "wb", buffering=0)  # noqa: SIM115
    with target:
        while True:
            kind, size = struct.unpack("<4sI", stream.read(8))
            if kind == b"DONE":
                break
            data = stream.read(size)
            daemon.pushed(size)
            try:
                target.write(data)
            except OSError as error:
                failure = error
    if failure:
        raise OSError(failure.errno, f"couldn't write: {failure.strerror}")
    if daemon.faults.damage_push and data:
        os.truncate(path, os.path.getsize(path) - 1)
    Path(path).chmod(stat.S_IMODE(int(mode)) | 0o600)
    stream.write(b"OKAY" + bytes(4))


def _receive(stream: Stream, daemon: Daemon, path: str) -> None:
    left = daemon.faults.cut_pull
    with open(path, "rb") as source:
        while block := source.read(_BLOCK if left is None else min(_BLOCK, left)):
            left = None if left is None else left - len(block)
            stream.write(b"DATA" + struct.pack("<I", len(block)) + block)
    stream.write(b"DONE" + bytes(4))
