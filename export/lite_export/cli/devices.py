"""``lite-export devices``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lite_export.cli.console import table_console
from lite_export.cli.options import AsJson, examples

if TYPE_CHECKING:
    from lite_runtime.device import Condition
    from lite_runtime.device_list import ListedDevice

EXAMPLES = examples(
    "lite-export devices", "lite-export devices --json", "ANDROID_ADB_SERVER_PORT=5038 lite-export devices"
)

# PowerManager.THERMAL_STATUS_*, in order.
_THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


def devices(as_json: AsJson = False) -> None:
    """List where a bundle can run: this machine, and every phone that adb sees, with what to do where one is not ready.

    Names are what --device takes elsewhere.
    """
    from lite_runtime.device_list import list_devices

    found = list_devices()
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    _print(found.devices, found.adb_problem)


def _print(listed: tuple[ListedDevice, ...], adb_problem: str | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("device", "state", "model", "chip", "ABI", "system", "cores", "governor", "battery", "heat")
    for device in listed:
        table.add_row(*map(escape, _cells(device)), style=None if device.state == "ready" else "yellow")
    console = table_console()
    console.print(table)
    notes = [f"{device.name} is {device.state}: {device.fix}" for device in listed if device.fix]
    notes += [
        f"{device.name}: its times are no measurements: {device.facts.emulated}"
        for device in listed
        if device.facts and device.facts.emulated
    ]
    for note in [*notes, *([adb_problem] if adb_problem else [])]:
        console.print(f"[yellow]{escape(note)}[/]", soft_wrap=True)


def _cells(device: ListedDevice) -> tuple[str, ...]:
    """A device's row; a dash for what it does not tell."""
    facts, condition = device.facts, device.condition
    if facts is None or condition is None:
        return device.name, device.state, *8 * ("-",)
    told = (
        facts.model,
        facts.soc,
        facts.abi,
        facts.system,
        facts.cores,
        facts.governor,
        _battery(condition),
        _heat(condition),
    )
    return device.name, device.state, *("-" if value is None else str(value) for value in told)


def _battery(condition: Condition) -> str | None:
    if condition.battery is None:
        return None
    return f"{condition.battery:.0f} %" + (", charging" if condition.charging else "")


def _heat(condition: Condition) -> str | None:
    status = None if condition.thermal_status is None else _THERMAL[condition.thermal_status]
    degrees = None if condition.temperature is None else f"{condition.temperature:.0f} °C"
    return ", ".join(filter(None, (degrees, status))) or None
