"""Test phones and an adb server for them, started and always stopped; no server or key of the user is touched."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from devices.adb_daemon import Faults
from devices.phone_root import make_root
from lite_runtime.adb import find_adb, server_version
from requirements import require

# A user and mount namespace for the file system, a process namespace so that nothing of a phone outlives it.
_NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child=KILL")
_ANDROID_ABIS = {"x86_64": "x86_64", "aarch64": "arm64-v8a"}


@cache
def require_namespaces() -> None:
    """Skip where test phones cannot live: not Linux, or no namespaces. CI on Linux as root must have them."""
    try:
        tried = subprocess.run([*_NAMESPACES, "true"], capture_output=True, text=True, check=False)
        reason = None if tried.returncode == 0 else tried.stderr.strip()
    except FileNotFoundError:
        reason = "there is no unshare"
    require(reason and f"a test phone needs Linux namespaces: {reason}")


@dataclass
class DaemonPhone:
    """A running ``adb_daemon``; a context manager, which stops it.

    Args:
        root: an empty folder that becomes its file system.
        model: as adb lists it.
        faults: from the start on.
        shared: folders of this machine that it sees too.
        disk: bytes that fit into its /data/local/tmp; None: no limit.
        properties: of getprop, beside the fixture's.
    """

    root: Path
    model: str = "Test_Phone"
    faults: Faults = field(default_factory=Faults)
    shared: Sequence[Path] = ()
    disk: int | None = None
    properties: dict[str, str] = field(default_factory=dict)
    port: int = 0

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        make_root(self.root, {"ro.product.cpu.abi": _ANDROID_ABIS[platform.machine()], **self.properties})
        self._process = subprocess.Popen(
            [*_NAMESPACES, sys.executable, "-m", "devices.adb_daemon"],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        settings = {
            "root": str(self.root),
            "shared": [str(folder) for folder in self.shared],
            "disk": self.disk,
            "product": {"name": "test", "model": self.model, "device": "test"},
            "faults": asdict(self.faults),
        }
        self.port = self._tell(settings)["port"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def serial(self) -> str:
        """Its name for adb."""
        return f"127.0.0.1:{self.port}"

    @property
    def files(self) -> list[str]:
        """What is below its /data/local/tmp; not where ``disk`` limits it."""
        base = self.root / "data" / "local" / "tmp"
        return sorted(path.relative_to(base).as_posix() for path in base.rglob("*"))

    @property
    def round_trips(self) -> int:
        """How many services adb opened so far."""
        return self._tell({})["opened"]

    def go_wrong(self, **faults: object) -> None:
        """From now on these faults, and no others."""
        self._tell({"faults": faults})

    def unplug(self) -> None:
        """Cut its connections; what runs on it is told so."""
        self._tell({"unplug": True})

    def plug_in(self) -> None:
        """Take connections again, on the same port."""
        self._tell({"plug_in": True})

    def _tell(self, order: dict) -> dict:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the test phone ended"
        return json.loads(answer)


@dataclass
class PrivateAdb:
    """An adb server on a port and with a home of its own."""

    binary: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str) -> str:
        command = [str(self.binary), *arguments]
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    @contextmanager
    def attached(self, *phones: DaemonPhone) -> Iterator[None]:
        """Attach phones, and detach them."""
        with ExitStack() as stack:
            for phone in phones:
                # adb would call one that it lost a moment ago connected, and offline.
                self._detach(phone.serial)
                self("connect", phone.serial)
                stack.callback(self._detach, phone.serial)
            yield

    def _detach(self, serial: str) -> None:
        # One that went away may be forgotten already.
        command = [str(self.binary), "disconnect", serial]
        subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, timeout=60, check=False)


@contextmanager
def private_adb() -> Iterator[PrivateAdb]:
    """Start a server, and stop it."""
    home = Path(tempfile.mkdtemp(prefix="lite-export-adb-"))
    environment = {
        "ANDROID_ADB_SERVER_PORT": str(free_port()),
        "HOME": str(home),
        "ANDROID_USER_HOME": str(home),
        "ANDROID_VENDOR_KEYS": str(home),
        "TMPDIR": str(home),
        # Neither the phones and emulators of this machine nor those of its network belong to a test.
        "ADB_USB": "0",
        "ADB_EMU": "0",
        "ADB_MDNS": "0",
    }
    adb = PrivateAdb(find_adb(), environment)
    # In the foreground, and killed by the kernel should the tests be: a daemon would outlive them.
    tied = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
    server = subprocess.Popen(
        [*tied, str(adb.binary), "nodaemon", "server"], env={**os.environ, **environment}, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(server, int(environment["ANDROID_ADB_SERVER_PORT"]))
        yield adb
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(home)


def _wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 30
    while server_version("127.0.0.1", port) is None:
        assert server.poll() is None and time.monotonic() < deadline, "adb's server did not start"
        time.sleep(0.01)


def free_port() -> int:
    """A TCP port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
