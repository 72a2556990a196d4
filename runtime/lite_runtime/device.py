"""The second seam: where a bundle runs. The host and an Android phone behind adb implement it; see also ``Session``."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

_LINES_SHOWN = 10


class DeviceError(ValueError):
    """A device is missing, refuses, or went away; the message says what to do."""


@dataclass(frozen=True)
class Completed:
    """A command that ended on a device; a negative exit code is the number of the signal that ended it."""

    exit_code: int
    stdout: str
    stderr: str

    def failure(self) -> str | None:
        """How it failed and the last lines it wrote to stderr: ``ended by SIGSEGV: ...``; None where it did not."""
        if not self.exit_code:
            return None
        how = f"ended by {_signal_name(-self.exit_code)}" if self.exit_code < 0 else f"exit code {self.exit_code}"
        said = self.stderr.strip().splitlines()[-_LINES_SHOWN:]
        return how + ("; it said:\n" + "\n".join(f"  {line}" for line in said) if said else "; it said nothing")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class DeviceFacts(BaseModel):
    """What a device is. None where it does not tell.

    ``emulated`` says why its times are no measurements: qemu, say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    model: str | None = None
    soc: str | None = None
    abi: str
    system: str
    cores: int | None = None
    memory: int | None = None
    governor: str | None = None
    emulated: str | None = None


class Condition(BaseModel):
    """What changes while a device works.

    Attributes:
        thermal_status: Android's, 0 (none) to 6 (shutdown); 2 (moderate) and above slow it down.
        temperature: degrees Celsius, the hottest zone.
        battery: per cent.
        charging: whether on a charger.
        energy: the battery's charge counter in microampere-hours; None where it has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    thermal_status: int | None = None
    temperature: float | None = None
    battery: float | None = None
    charging: bool | None = None
    energy: int | None = None


@runtime_checkable
class Device(Protocol):
    """One place that can run the native runner. Remote paths are relative to ``workspace``, a folder of its own.

    Every method raises DeviceError if the device is gone. As a context manager it removes all it put there at the end.
    """

    name: str

    def __enter__(self) -> Device: ...  # noqa: PYI034 - beartype cannot check Self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def facts(self) -> DeviceFacts:
        """What it is."""
        ...

    def condition(self) -> Condition:
        """How it is now."""
        ...

    def push(self, local: Path, remote: str) -> int:
        """Copy a file or a folder there, whole or not at all; a folder there loses what the local one has not.

        Returns:
            The bytes sent: what is there already is not.
        """
        ...

    def run(self, command: Sequence[str], timeout: float, environment: Mapping[str, str] | None = None) -> Completed:
        """Run a command in the workspace; after ``timeout`` seconds it is killed there, and DeviceError raised."""
        ...

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from there, whole or not at all."""
        ...

    def remove(self, remote: str = "") -> None:
        """Delete a file or folder; by default all that was put there. What is not there is no error."""
        ...


def workspace_path(remote: str) -> PurePosixPath:
    """A path inside a workspace; "" is the workspace itself.

    Raises:
        DeviceError: it would lead out of it.
    """
    path = PurePosixPath(remote)
    if path.is_absolute() or ".." in path.parts:
        raise DeviceError(f"{remote}: leads out of the device's workspace; give a path relative to it")
    return path


def check_abi(facts: DeviceFacts, runner_abi: str) -> None:
    """Whether a runner can run there at all.

    Args:
        runner_abi: what it was built for: ``linux-x86_64``, ``android-arm64``, or an ABI alone.

    Raises:
        DeviceError: it cannot; the message names the runner that can.
    """
    if _architecture(runner_abi) != _architecture(facts.abi):
        wanted = _architecture(facts.abi)
        raise DeviceError(
            f"{facts.name} is {facts.abi} ({facts.system}), the runner was built for {runner_abi}: "
            f"use one built for {wanted}"
        )


def _architecture(abi: str) -> str:
    """Android, Linux and macOS have names of their own for the same processors."""
    name = abi.lower().removeprefix("linux-").removeprefix("android-").removeprefix("macos-")
    names = {"arm64-v8a": "arm64", "aarch64": "arm64", "amd64": "x86_64", "armeabi-v7a": "arm", "armv7l": "arm"}
    return names.get(name, name)
