"""What a test phone's /proc/cpuinfo and /sys say: plain files, for the libraries that read there what the CPU can do.

With the host's own files an ARM library would take an x86 description for its own, and crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Arm(NamedTuple):
    """A processor qemu plays, as the kernel describes it: implementer and part numbers, and its instructions."""

    implementer: int
    part: int
    features: str


_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_DOT = f"{_BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
# By qemu's names. The first two have no int8 dot product; max has all qemu knows, int8 matrix products and SVE too, but
# here without SME: the 7.2 of Debian 12 computes its int8 outer products (SMOPA) wrong.
ARM_CPUS = {
    "cortex-a53": Arm(0x41, 0xD03, _BASE),
    "cortex-a72": Arm(0x41, 0xD08, _BASE),
    "cortex-a76": Arm(0x41, 0xD0B, _DOT),
    "max,sme=off": Arm(0x00, 0x051, f"{_DOT} sha3 sha512 asimdfhm sve bf16 i8mm"),
}
_ARM_CORE = """\
processor\t: {core}
BogoMIPS\t: 100.00
Features\t: {arm.features}
CPU implementer\t: {arm.implementer:#04x}
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {arm.part:#05x}
CPU revision\t: 0

"""


def arm_cpuinfo(cpu: str, cores: int) -> str:
    """/proc/cpuinfo of that many cores of one of ``ARM_CPUS``."""
    return "".join(_ARM_CORE.format(core=core, arm=ARM_CPUS[cpu]) for core in range(cores))


def write_kernel_files(folder: Path, cpuinfo: str, cores: int) -> Path:
    """Write ``cpuinfo``, and ``sys`` for that many equal cores, into a new folder."""
    cpus = f"0-{cores - 1}" if cores > 1 else "0"
    _write(folder, {"cpuinfo": cpuinfo})
    _write(folder / "sys/devices/system/cpu", dict.fromkeys(("possible", "present", "online"), cpus))
    for core in range(cores):
        place = folder / f"sys/devices/system/cpu/cpu{core}"
        _write(
            place / "topology",
            {
                "core_id": f"{core}",
                "core_siblings_list": cpus,
                "physical_package_id": "0",
                "thread_siblings_list": f"{core}",
            },
        )
        frequencies = dict.fromkeys(("cpuinfo_max_freq", "cpuinfo_min_freq", "scaling_cur_freq"), "1000000")
        _write(place / "cpufreq", {**frequencies, "scaling_governor": "fixture"})
    return folder


def _write(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text.rstrip("\n") + "\n")
