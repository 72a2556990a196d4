"""What /proc and /sys say, read by the host itself or sent by a phone: text in, facts out. None: not told."""

from __future__ import annotations

import re
from collections.abc import Iterable


def cpu_model(cpuinfo: str) -> str | None:
    """Name of the processor, from /proc/cpuinfo; ARM kernels seldom give one."""
    found = re.search(r"^(?:model name|Hardware|Model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found and found[1].strip()


def translated_by(abi: str, cpuinfo: str) -> str | None:
    """Why code for ``abi`` does not run on the processor itself: it is of another kind, or qemu's; None if it does."""
    model = cpu_model(cpuinfo) or ""
    if re.search(r"QEMU TCG|VirtualApple", model):
        return f"the processor is emulated ({model})"
    vendor = re.search(r"GenuineIntel|AuthenticAMD", cpuinfo)
    if vendor and re.match(r"arm|aarch64", abi):
        return f"{abi} code is translated on an x86 processor ({vendor[0]})"
    return None


def governors(values: Iterable[str]) -> str | None:
    """How the cores choose their frequency, each way once: ``schedutil``."""
    return ", ".join(sorted({value.strip() for value in values} - {""})) or None


def hottest(zones: Iterable[str]) -> float | None:
    """Degrees Celsius of the hottest thermal zone.

    Args:
        zones: what each ``temp`` file holds, in thousandths of a degree; a few drivers write whole degrees.
    """
    degrees = [int(zone) for zone in zones if re.fullmatch(r"\s*-?\d+\s*", zone)]
    scaled = [value / 1000 if abs(value) >= 1000 else float(value) for value in degrees]
    # A sensor that is off reads as 0, -274 or 200.
    return max((value for value in scaled if 0 < value < 130), default=None)


def total_memory(meminfo: str) -> int | None:
    """Bytes of memory, from /proc/meminfo."""
    found = re.search(r"^MemTotal:\s*(\d+) kB", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def core_count(cpus: str) -> int | None:
    """Number of cores in a list such as ``0-3,6``, the form of /sys/devices/system/cpu/present."""
    ranges = re.findall(r"(\d+)(?:-(\d+))?", cpus)
    return sum(int(last or first) - int(first) + 1 for first, last in ranges) or None
