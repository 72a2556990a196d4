"""What Android's getprop and dumpsys say of a phone: the commands to ask, and what their output means."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lite_runtime.device import Condition, DeviceFacts
from lite_runtime.linux_readings import core_count, governors, hottest, total_memory, translated_by

# One round trip asks all of them; a command the phone does not have says nothing.
FACTS_ASKED = {
    "properties": "getprop",
    "cpuinfo": "cat /proc/cpuinfo",
    "meminfo": "cat /proc/meminfo",
    "present": "cat /sys/devices/system/cpu/present",
    "governors": "cat /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
}
CONDITION_ASKED = {
    "thermal": "dumpsys thermalservice",
    "battery": "dumpsys battery",
    "zones": "cat /sys/class/thermal/thermal_zone*/temp",
}

# The emulator's two machines, and Cuttlefish.
_VIRTUAL_HARDWARE = re.compile(r"goldfish|ranchu|cutf|vsoc")

# Kinds of reading that the thermal service lists among temperatures: unknown; the battery's voltage, current, charge.
_NOT_TEMPERATURES = {"-1", "6", "7", "8"}


def android_facts(name: str, answers: Mapping[str, str]) -> DeviceFacts:
    """Facts from the answers to ``FACTS_ASKED``."""
    properties = dict(re.findall(r"^\[(.+?)\]: \[(.*)\]$", answers["properties"], re.MULTILINE))
    abi = properties.get("ro.product.cpu.abi", "unknown")
    return DeviceFacts(
        name=name,
        model=_joined(properties, "ro.product.manufacturer", "ro.product.model"),
        # Android 12 names the chip; before, the board stands for it.
        soc=_joined(properties, "ro.soc.manufacturer", "ro.soc.model") or properties.get("ro.board.platform"),
        abi=abi,
        system=f"Android {properties.get('ro.build.version.release', 'of unknown version')}",
        cores=core_count(answers["present"]) or answers["cpuinfo"].count("processor\t") or None,
        memory=total_memory(answers["meminfo"]),
        governor=governors(answers["governors"].splitlines()),
        emulated=_emulated(properties, abi, answers["cpuinfo"]),
    )


def _emulated(properties: Mapping[str, str], abi: str, cpuinfo: str) -> str | None:
    """A test phone of ours says so itself; then Android's emulators; then code for another processor than there is."""
    if said := properties.get("ro.lite_export.emulated"):
        return said
    hardware = properties.get("ro.hardware", "")
    qemu = "1" in (properties.get("ro.kernel.qemu"), properties.get("ro.boot.qemu"))
    if qemu or _VIRTUAL_HARDWARE.search(hardware):
        return f"an Android emulator ({hardware or 'qemu'})"
    return translated_by(abi, cpuinfo)


def android_condition(answers: Mapping[str, str]) -> Condition:
    """Condition from the answers to ``CONDITION_ASKED``."""
    # Some makers print a section of their own before Android's.
    _, _, listed = answers["battery"].partition("Current Battery Service state:")
    battery = dict(re.findall(r"^\s*([\w ]+?): (\S+)$", listed, re.MULTILINE))
    level, scale = _number(battery.get("level")), _number(battery.get("scale"))
    powered = [value == "true" for key, value in battery.items() if key.endswith(" powered")]
    # A phone without a charge counter says 0.
    charge = _number(battery.get("Charge counter"))
    status = re.search(r"^Thermal Status: (\d)", answers["thermal"], re.MULTILINE)
    return Condition(
        thermal_status=int(status[1]) if status else None,
        temperature=_temperature(answers, _number(battery.get("temperature"))),
        battery=100 * level / scale if level is not None and scale else None,
        charging=any(powered) if powered else None,
        energy=int(charge) if charge else None,
    )


def _temperature(answers: Mapping[str, str], battery: float | None) -> float | None:
    """Of the hottest sensor now: as the thermal service reads them, else the kernel's zones, else the battery."""
    _, _, current = answers["thermal"].partition("Current temperatures from HAL:")
    current, _, _ = current.partition("Current cooling devices")
    readings = re.findall(r"Temperature\{mValue=(-?[\d.]+), mType=(-?\d+)", current)
    degrees = (value for value, kind in readings if kind not in _NOT_TEMPERATURES)
    sensors = hottest(str(round(1000 * float(value))) for value in degrees)
    zones = hottest(answers["zones"].splitlines())
    return sensors or zones or (battery / 10 if battery else None)


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"-?\d+", text) else None


def _joined(properties: Mapping[str, str], *keys: str) -> str | None:
    """``Google`` and ``Pixel 8``; a model that begins with its maker names it once."""
    first, last = (properties.get(key, "") for key in keys)
    words = [last] if last.lower().startswith(first.lower()) else [first, last]
    return " ".join(filter(None, words)) or None
