"""What macOS's own tools say of a Mac."""

from __future__ import annotations

import os
import platform
import re
import subprocess

from lite_runtime.device import Condition, DeviceFacts


def mac_facts() -> DeviceFacts:
    """Model, chip, cores and memory, from sysctl."""
    memory = _output("sysctl", "-n", "hw.memsize").strip()
    translated = _output("sysctl", "-n", "sysctl.proc_translated").strip() == "1"
    return DeviceFacts(
        name="host",
        model=_output("sysctl", "-n", "hw.model").strip() or None,
        soc=_output("sysctl", "-n", "machdep.cpu.brand_string").strip() or None,
        abi=platform.machine(),
        system=f"macOS {platform.mac_ver()[0]}",
        cores=os.cpu_count(),
        memory=int(memory) if memory else None,
        emulated="x86_64 code is translated by Rosetta" if translated else None,
    )


def mac_condition() -> Condition:
    """Battery and charger, from pmset. Heat and the battery's charge are shown to root alone."""
    return battery_condition(_output("pmset", "-g", "batt"))


def battery_condition(pmset: str) -> Condition:
    """What ``pmset -g batt`` says; a Mac without a battery tells nothing."""
    level = re.search(r"(\d+)%", pmset)
    if level is None:
        return Condition()
    return Condition(battery=float(level[1]), charging="'AC Power'" in pmset)


def _output(*command: str) -> str:
    """Standard output; empty where the key is unknown."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
