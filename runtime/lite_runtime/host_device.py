"""This machine as a Device: a temporary folder as workspace, facts from /proc and /sys, or from macOS's own tools."""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from lite_runtime.device import Completed, Condition, DeviceError, DeviceFacts, workspace_path
from lite_runtime.device_files import parcel, sha256
from lite_runtime.interrupts import held_interrupts
from lite_runtime.linux_readings import cpu_model, governors, hottest, total_memory, translated_by
from lite_runtime.macos_readings import mac_condition, mac_facts


class HostDevice:
    """Runs commands of this machine in a temporary folder of its own, made when first needed."""

    name = "host"

    def __init__(self) -> None:
        self._folder: Path | None = None

    def __enter__(self) -> HostDevice:  # noqa: PYI034 - beartype cannot check Self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def workspace(self) -> Path:
        """The temporary folder; ``remove()`` deletes it."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="lite-export-"))
        return self._folder

    def facts(self) -> DeviceFacts:
        """See Device.facts."""
        return mac_facts() if sys.platform == "darwin" else _linux_facts()

    def condition(self) -> Condition:
        """See Device.condition. macOS tells of its battery only; heat and charge it shows to root alone."""
        return mac_condition() if sys.platform == "darwin" else _linux_condition()

    def push(self, local: Path, remote: str) -> int:
        """See Device.push."""
        packed = parcel(local, remote)
        base = self.workspace / packed.base
        changed = {name: path for name, path in packed.files.items() if not _same(path, base / name)}
        with TemporaryDirectory(dir=self.workspace) as staged:
            for name, path in changed.items():
                _copy(path, Path(staged) / name)
            for name in changed:
                (base / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(staged) / name).replace(base / name)
        if packed.only is None:
            for path in base.rglob("*"):
                if path.is_file() and path.relative_to(base).as_posix() not in packed.files:
                    path.unlink()
        return sum(path.stat().st_size for path in changed.values())

    def run(self, command: Sequence[str], timeout: float, environment: Mapping[str, str] | None = None) -> Completed:
        """See Device.run. A program that is missing or cannot be run gives 127 or 126, as a shell would."""
        with held_interrupts() as let_through:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=self.workspace,
                    env={**os.environ, **(environment or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            except OSError as error:
                code = 127 if isinstance(error, FileNotFoundError) else 126
                return Completed(code, "", f"{command[0]}: {error.strerror}\n")
            try:
                let_through()
                stdout, stderr = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                _end(process)
                raise DeviceError(f"{command[0]} did not end within {timeout:g} s on host; it was stopped") from None
            except KeyboardInterrupt:
                _end(process)
                raise
        return Completed(process.returncode, stdout, stderr)

    def pull(self, remote: str, local: Path) -> None:
        """See Device.pull."""
        source = self.workspace / workspace_path(remote)
        if not source.is_file():
            raise DeviceError(f"there is no {remote} on host: the command that writes it did not")
        local.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=local.parent, prefix=".lite-export-") as staged:
            _copy(source, Path(staged) / local.name)
            (Path(staged) / local.name).replace(local)

    def remove(self, remote: str = "") -> None:
        """See Device.remove."""
        path = workspace_path(remote)
        if self._folder is None:
            return
        target = self._folder / path
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        if not remote:
            self._folder = None


def _same(source: Path, target: Path) -> bool:
    return target.is_file() and target.stat().st_size == source.stat().st_size and sha256(source) == sha256(target)


def _copy(source: Path, target: Path) -> None:
    """With its mode: a program stays one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a process and what it started, which a session of its own holds together."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _linux_facts() -> DeviceFacts:
    cpu, machine = _read("/proc/cpuinfo"), platform.machine()
    return DeviceFacts(
        name="host",
        model=_read("/sys/class/dmi/id/product_name").strip() or None,
        soc=cpu_model(cpu),
        abi=machine,
        system=f"{platform.system()} {platform.release()}",
        cores=len(os.sched_getaffinity(0)),
        memory=total_memory(_read("/proc/meminfo")),
        governor=governors(_read_all("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")),
        emulated=translated_by(machine, cpu),
    )


def _linux_condition() -> Condition:
    """Of a laptop's first battery; a desktop has none."""
    level = next(iter(_read_all("/sys/class/power_supply/*/capacity")), "").strip()
    status = next(iter(_read_all("/sys/class/power_supply/*/status")), "").strip()
    charge = next(iter(_read_all("/sys/class/power_supply/*/charge_now")), "").strip()
    return Condition(
        temperature=hottest(_read_all("/sys/class/thermal/thermal_zone*/temp")),
        battery=float(level) if level else None,
        charging=status != "Discharging" if status else None,
        energy=int(charge) if charge else None,
    )


def _read(path: str) -> str:
    """Text of a file of /proc or /sys; empty where there is none, or it is not for us."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _read_all(pattern: str) -> list[str]:
    return [_read(path) for path in sorted(glob.glob(pattern))]
