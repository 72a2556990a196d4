"""Test phones: AOSP's own adb daemon in namespaces of its own, with the adb server that talks to it.

Nothing listens outside, no user's adb server or phone is touched, and everything ends with the test process.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from phones.adbd import adbd
from phones.kernel_files import arm_cpuinfo, write_kernel_files
from phones.userland import userland

BOOT = Path(__file__).with_name("boot.sh")
_PORT = 6555
_PATIENCE = 30.0


@dataclass(frozen=True)
class Phone:
    """A running phone.

    Attributes:
        adb: a script that runs the real adb beside the phone, where alone its server and daemon listen.
        environment: what makes a process find that adb by itself, as it would a user's.
    """

    serial: str
    adb: Path
    environment: Mapping[str, str]
    _daemon: subprocess.Popen[bytes]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run adb on this phone."""
        command = [self.adb, "-s", self.serial, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    def unplug(self) -> None:
        """Stop the daemon and every process on the phone. The adb server stays, and loses sight of it."""
        self._daemon.kill()
        self._daemon.wait()


@dataclass(frozen=True)
class _Server:
    """An adb server in a network namespace of its own, which lives as long as it does."""

    adb: Path
    environment: Mapping[str, str]
    network: str


@contextmanager
def running_phone(
    architecture: str, cpu: str | None = None, storage: str = "2g", adb: Path | None = None
) -> Iterator[Phone]:
    """A phone from start to end.

    Args:
        architecture: Debian's name: ``amd64`` runs as it is, ``arm64`` under qemu-user.
        cpu: the ARM processor qemu plays, one of ``kernel_files.ARM_CPUS``.
        storage: size of /data, where all that is pushed goes; lost at the end.
        adb: the client and server; None takes adbutils'.
    """
    with TemporaryDirectory(prefix="lite-phone-") as temporary:
        folder = Path(temporary)
        cores = os.cpu_count() or 1
        cpuinfo = Path("/proc/cpuinfo").read_text() if cpu is None else arm_cpuinfo(cpu, cores)
        kernel = write_kernel_files(folder / "kernel", cpuinfo, cores)
        boot = [BOOT, userland(architecture), adbd(), kernel, storage, _PORT]
        with _server(folder, adb or _packaged_adb()) as server:
            namespaces = ["nsenter", server.network, "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"]
            with _tied([*namespaces, *boot], folder / "phone.log", {"QEMU_CPU": cpu} if cpu else {}) as daemon:
                phone = Phone(f"127.0.0.1:{_PORT}", server.adb, server.environment, daemon)
                _wait(lambda: _connected(phone), daemon, folder / "phone.log")
                yield phone


@contextmanager
def _server(folder: Path, adb: Path) -> Iterator[_Server]:
    port = _free_port()
    # A home of its own for its keys; no search for phones on USB, in the network, or for emulators.
    settings = {"HOME": folder, "ANDROID_ADB_SERVER_PORT": port, "ADB_USB": 0, "ADB_MDNS": 0, "ADB_EMU": 0}
    command = ["env", *(f"{name}={value}" for name, value in settings.items()), str(adb)]
    start = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command, "server", "nodaemon"]
    with _tied(start, folder / "server.log") as process:
        # A client that comes before would start another server.
        _wait(lambda: _listens(process.pid, port), process, folder / "server.log")
        network = f"--net=/proc/{process.pid}/ns/net"
        # Where an Android SDK has its adb.
        script = folder / "sdk" / "platform-tools" / "adb"
        script.parent.mkdir(parents=True)
        script.write_text(f'#!/bin/sh\nexec {shlex.join(["nsenter", network, *command])} "$@"\n')
        script.chmod(0o755)
        yield _Server(script, {"ANDROID_HOME": str(folder / "sdk"), "ANDROID_ADB_SERVER_PORT": str(port)}, network)


@contextmanager
def _tied(
    command: Sequence[object], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block, and with this process, however that ends."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *map(str, command)],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _packaged_adb() -> Path:
    import adbutils

    return Path(adbutils.adb_path())


def _free_port() -> int:
    """A port where nothing of the machine's listens: who looks for the server outside finds none."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _listens(process: int, port: int) -> bool:
    """Whether a port of the process's network is taken: in the kernel's table, address, port and state 0A (listen)."""
    table = Path(f"/proc/{process}/net/tcp").read_text()
    own = os.readlink(f"/proc/{process}/ns/net") != os.readlink("/proc/self/ns/net")
    return own and re.search(rf":{port:04X} \S+ 0A ", table) is not None


def _connected(phone: Phone) -> bool:
    if "connected to" not in phone("connect", phone.serial).stdout:
        return False
    return phone("shell", "true").returncode == 0


def _wait(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the test phone does not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.05)
