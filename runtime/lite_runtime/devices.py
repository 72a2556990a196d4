"""Which device is meant: ``host``, ``adb``, ``adb:SERIAL``. Imports nothing heavy, so that ``--help`` may read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lite_runtime.device import Device

DEVICE_HELP = (
    "Where to run: host, adb (the one phone attached), adb:SERIAL, adb:all; several by commas or by repeating it. "
    "lite-export devices lists them."
)


def find_device(spec: str, keep: bool = False) -> Device:
    """The one device that is meant.

    Args:
        spec: see ``DEVICE_HELP``.
        keep: leave what was pushed on the phone, so that the next run pushes only what changed.

    Raises:
        DeviceError: none such, more than one, or it cannot be used; the message names the fix.
    """
    from lite_runtime.device import DeviceError

    found = find_devices([spec], keep)
    if len(found) > 1:
        raise DeviceError(f"{spec} means {len(found)} devices ({', '.join(d.name for d in found)}): choose one")
    return found[0]


def find_devices(specs: Sequence[str], keep: bool = False) -> tuple[Device, ...]:
    """All devices that are meant, each once, in the order given. Arguments and errors as of ``find_device``."""
    from lite_runtime.device import DeviceError

    names = [name.strip() for spec in specs for name in spec.split(",")]
    found = [device for name in dict.fromkeys(names) for device in _devices(name, keep)]
    by_name = {device.name: device for device in found}
    if not by_name:
        raise DeviceError("no device named: say host, adb or adb:SERIAL")
    return tuple(by_name.values())


def _devices(name: str, keep: bool) -> Sequence[Device]:
    from lite_runtime.device import DeviceError

    if name == "host":
        from lite_runtime.host_device import HostDevice

        return [HostDevice()]
    kind, _, serial = name.partition(":")
    if kind != "adb" or name == "adb:":
        raise DeviceError(f"unknown device {name!r}: say host, adb or adb:SERIAL (lite-export devices lists them)")
    from lite_runtime.adb_device import all_phones, find_phone

    return all_phones(keep) if serial == "all" else [find_phone(serial or None, keep)]
