"""The second seam: where a bundle runs. The host and an Android phone behind adb implement it; see also ``Session``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict


class DeviceError(ValueError):
    """A device is missing, refuses, or went away; the message says what to do."""


@dataclass(frozen=True)
class Completed:
    """A command that ended on a device; a negative exit code is the number of the signal that ended it."""

    exit_code: int
    stdout: str
    stderr: str


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

    Every method raises DeviceError if the device is gone.
    """

    name: str

    def facts(self) -> DeviceFacts:
        """What it is."""
        ...

    def condition(self) -> Condition:
        """How it is now."""
        ...

    def push(self, local: Path, remote: str) -> int:
        """Copy a file or a folder there, whole or not at all; returns the bytes sent: what is there already is not."""
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
