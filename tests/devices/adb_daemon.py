"""A test phone: the device side of the adb protocol over TCP, in pure Python, in namespaces of its own.

It is no Android and emulates none. The real adb connects to it as to a phone; commands run on this machine's own Linux,
in a folder that stands for the phone's file system; getprop and dumpsys print fixtures. Faults happen on demand.
Started by ``daemon_phone.DaemonPhone`` as ``python -m devices.adb_daemon``; ends when its standard input does.

The protocol: packages/modules/adb/protocol.txt and SYNC.TXT of AOSP.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import Queue
from typing import Any

from devices.adb_services import serve_shell, serve_sync
from devices.phone_root import enter_root

MAX_PAYLOAD = 256 * 1024
_VERSION = 0x01000001
_FEATURES = "shell_v2,cmd,fixed_push_mkdir"
_HEADER = struct.Struct("<6I")
_TOKEN, _SIGNATURE, _PUBLIC_KEY = 1, 2, 3


def _command(name: bytes) -> int:
    return int.from_bytes(name, "little")


CNXN, OPEN, OKAY, CLSE, WRTE, AUTH = map(_command, (b"CNXN", b"OPEN", b"OKAY", b"CLSE", b"WRTE", b"AUTH"))


@dataclass(frozen=True)
class Faults:
    """What goes wrong on purpose. The numbers are of bytes or seconds; None and False: nothing.

    Attributes:
        unauthorized: nobody accepts the key of adb's server.
        vanish_after_pushed: the cable is pulled after so many bytes of pushed files.
        vanish_after_running: the cable is pulled so long after a shell command began that is not the phone's own.
        damage_push: the last byte of every pushed file is lost, though adb is told that all arrived.
        cut_pull: every pulled file ends after so many bytes, though adb is told that it was whole.
        delay: every service waits so long before it begins.
    """

    unauthorized: bool = False
    vanish_after_pushed: int | None = None
    vanish_after_running: float | None = None
    damage_push: bool = False
    cut_pull: int | None = None
    delay: float = 0.0


class Stream:
    """One service's two-way channel; ``read`` and ``write`` raise EOFError once the other side closed it."""

    def __init__(self, connection: Connection, local: int, remote: int) -> None:
        self.local, self.remote = local, remote
        self.connection = connection
        self.open = True
        self._arrived: Queue[bytes] = Queue()
        self._unread = b""
        self._acknowledged = threading.Semaphore(0)

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        while len(self._unread) < size:
            block = self._arrived.get()
            if not block:
                raise EOFError
            self._unread += block
            self.connection.send(OKAY, self.local, self.remote)
        taken, self._unread = self._unread[:size], self._unread[size:]
        return taken

    def write(self, data: bytes) -> None:
        """Each packet waits until the one before was acknowledged, as the protocol demands."""
        for start in range(0, len(data), self.connection.max_payload):
            if not self.open:
                raise EOFError
            self.connection.send(WRTE, self.local, self.remote, data[start : start + self.connection.max_payload])
            self._acknowledged.acquire()

    def receive(self, command: int, data: bytes) -> None:
        """A packet of the other side."""
        if command == WRTE:
            self._arrived.put(data)
        elif command == OKAY:
            self._acknowledged.release()
        elif command == CLSE:
            self.hang_up()

    def hang_up(self) -> None:
        """The other side is gone: wake whoever waits for it."""
        self.open = False
        self._arrived.put(b"")
        self._acknowledged.release()

    def close(self) -> None:
        if self.open:
            self.open = False
            self.connection.send(CLSE, self.local, self.remote)


@dataclass
class Connection:
    """One adb server, connected."""

    socket: socket.socket
    daemon: Daemon
    max_payload: int = MAX_PAYLOAD
    streams: dict[int, Stream] = field(default_factory=dict)
    _sending: threading.Lock = field(default_factory=threading.Lock)
    _checksums: bool = True
    _opened: int = 0

    def serve(self) -> None:
        """Until it is closed."""
        try:
            while True:
                self._take(*self._receive())
        except (EOFError, OSError):
            pass
        finally:
            self.socket.close()
            for stream in list(self.streams.values()):
                stream.hang_up()

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        checksum = sum(data) & 0xFFFFFFFF if self._checksums else 0
        header = _HEADER.pack(command, first, second, len(data), checksum, command ^ 0xFFFFFFFF)
        with self._sending:
            self.socket.sendall(header + data)

    def _receive(self) -> tuple[int, int, int, bytes]:
        command, first, second, size, _, magic = _HEADER.unpack(self._exactly(_HEADER.size))
        if command ^ 0xFFFFFFFF != magic:
            raise EOFError("not the adb protocol")
        return command, first, second, self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            block = self.socket.recv(size - len(data))
            if not block:
                raise EOFError
            data += block
        return bytes(data)

    def _take(self, command: int, first: int, second: int, data: bytes) -> None:
        faults = self.daemon.faults
        if command == CNXN:
            self._checksums = first < _VERSION
            self.max_payload = min(second, MAX_PAYLOAD)
        if faults.unauthorized:
            # A key offered is a question on the phone's screen, and nobody answers it.
            if command == CNXN or (command == AUTH and first == _SIGNATURE):
                self.send(AUTH, _TOKEN, 0, bytes(20))
            return
        if command == CNXN:
            self.send(CNXN, _VERSION, MAX_PAYLOAD, self.daemon.banner)
        elif command == OPEN:
            self._open(first, data.rstrip(b"\0").decode())
        elif second in self.streams:
            self.streams[second].receive(command, data)

    def _open(self, remote: int, service: str) -> None:
        self.daemon.opened += 1
        self._opened += 1
        stream = self.streams[self._opened] = Stream(self, self._opened, remote)
        threading.Thread(target=self._serve_stream, args=(stream, service), daemon=True).start()

    def _serve_stream(self, stream: Stream, service: str) -> None:
        kind, _, argument = service.partition(":")
        name, *options = kind.split(",")
        try:
            self.daemon.wait()
            if name not in ("shell", "exec", "sync"):
                self.send(CLSE, 0, stream.remote)
                return
            self.send(OKAY, stream.local, stream.remote)
            if name == "sync":
                serve_sync(stream, self.daemon)
            else:
                serve_shell(stream, self.daemon, argument, "v2" in options)
        except (EOFError, OSError):
            pass
        finally:
            with suppress(OSError):
                stream.close()
            stream.hang_up()
            self.streams.pop(stream.local, None)


class Daemon:
    """Listens on a port of this machine alone.

    Args:
        product: name, model and device, as ``adb devices -l`` shows them.
        port: 0 takes a free one.
    """

    def __init__(self, product: dict[str, str], faults: Faults, port: int = 0) -> None:
        self.faults = faults
        self.opened = 0
        known = "".join(f"ro.product.{key}={value};" for key, value in product.items())
        self.banner = f"device::{known}features={_FEATURES}".encode()
        self._connections: list[Connection] = []
        self._pushed = 0
        self._unplugged = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Accept connections, in a thread of its own each, until unplugged."""
        listener = self._listener
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(accepted, self)
            self._connections.append(connection)
            threading.Thread(target=connection.serve, daemon=True).start()

    def wait(self) -> None:
        """The fault ``delay``."""
        self._unplugged.wait(self.faults.delay)

    def pushed(self, size: int) -> None:
        """Count bytes of pushed files, and the fault ``vanish_after_pushed``."""
        self._pushed += size
        limit = self.faults.vanish_after_pushed
        if limit is not None and self._pushed >= limit:
            self.unplug()

    def unplug(self) -> None:
        """Cut every connection and take no more: what runs here goes on, as on a phone."""
        self._unplugged.set()
        # Shut down, not only closed: a thread that waits in accept() or recv() would hold it open.
        _shut(self._listener)
        for connection in self._connections:
            _shut(connection.socket)
        self._connections.clear()

    def plug_in(self) -> None:
        """Listen on the same port again."""
        self._pushed = 0
        self._unplugged.clear()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.serve, daemon=True).start()

    def obey(self, order: dict[str, Any]) -> None:
        """``{"faults": {...}}``, ``{"unplug": true}``, ``{"plug_in": true}``; any order is answered with the counts."""
        if "faults" in order:
            self.faults = replace(Faults(), **order["faults"])
        if "unplug" in order:
            self.unplug()
        if "plug_in" in order:
            self.plug_in()


def _shut(open_socket: socket.socket) -> None:
    with suppress(OSError):  # the other side was quicker
        open_socket.shutdown(socket.SHUT_RDWR)
    open_socket.close()


def main() -> None:
    """Read the settings from standard input, tell the port, and obey one order a line until the input ends."""
    settings = json.loads(sys.stdin.readline())
    enter_root(settings["root"], settings["shared"], settings["disk"])
    daemon = Daemon(settings["product"], Faults(**settings["faults"]))
    threading.Thread(target=daemon.serve, daemon=True).start()
    print(json.dumps({"port": daemon.port}), flush=True)
    for line in sys.stdin:
        daemon.obey(json.loads(line))
        print(json.dumps({"opened": daemon.opened}), flush=True)


if __name__ == "__main__":
    main()
