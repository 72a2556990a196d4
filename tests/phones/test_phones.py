"""The test phones themselves: real adb, real adbd, nothing outside."""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path

import pytest

from lite_runtime.adb import Adb
from lite_runtime.adb_device import AdbDevice
from lite_runtime.device import DeviceError
from phones.fixtures import use
from phones.kernel_files import ARM_CPUS, arm_cpuinfo
from phones.machine import lacking, lacking_arm64
from phones.phone import Phone, running_phone
from requirements import require


@pytest.fixture(params=["real_adbd", "arm64_phone"])
def phone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Phone:
    """Each phone; this process finds its adb as it would a user's."""
    found: Phone = request.getfixturevalue(request.param)
    use(found, monkeypatch)
    return found


def test_exit_codes_and_streams_are_kept_apart(phone: Phone) -> None:
    done = phone("shell", "echo out; echo err >&2; exit 42")
    assert (done.returncode, done.stdout, done.stderr) == (42, "out\n", "err\n")


def test_the_device_over_it(phone: Phone, tmp_path: Path) -> None:
    (tmp_path / "a file").write_bytes(bytes(range(256)) * 1000)
    with AdbDevice(Adb(), phone.serial) as device:
        facts, condition = device.facts(), device.condition()
        assert facts.model is not None and facts.model.endswith("test phone")
        assert (condition.thermal_status, condition.battery) == (0, 100.0)
        assert device.push(tmp_path / "a file", "there/a file") == 256_000
        assert device.push(tmp_path / "a file", "there/a file") == 0
        device.pull("there/a file", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == (tmp_path / "a file").read_bytes()
        assert device.run(["sh", "-c", "kill -SEGV $$"], timeout=30.0).exit_code == -11
        with pytest.raises(DeviceError, match="did not end within 1 s"):
            device.run(["sleep", "600"], timeout=1.0)
        assert "sleep" not in phone("shell", "ps -A -o NAME").stdout
    assert phone("shell", "ls /data/local/tmp").stdout == ""


def test_nothing_listens_outside(phone: Phone) -> None:
    ports = (phone.serial.rpartition(":")[2], phone.environment["ANDROID_ADB_SERVER_PORT"])
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    for port in ports:
        # A local address, any peer, and the state of one who listens.
        assert not re.search(rf":{int(port):04X} \S+ 0A ", listening)
    inside = subprocess.run([phone.adb, "devices"], capture_output=True, text=True, check=True).stdout
    assert phone.serial in inside


def test_the_phone_sees_neither_the_hosts_files_nor_its_processes(phone: Phone) -> None:
    assert phone("shell", f"ls {Path(__file__)}").returncode != 0
    assert len(phone("shell", "ps -A -o PID").stdout.split()) < 8
    assert "Read-only" in phone("shell", "touch /system/new").stderr


def test_the_arm64_phone_runs_arm64_and_says_it_is_emulated(
    arm64_phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(arm64_phone, monkeypatch)
    facts = AdbDevice(Adb(), arm64_phone.serial).facts()
    assert arm64_phone("shell", "uname -m").stdout.strip() == "aarch64"
    assert facts.abi == "arm64-v8a"
    assert facts.emulated is not None and "qemu" in facts.emulated
    # Like a phone, it has no loader for what brings none.
    assert arm64_phone("shell", "ls /lib/ld-linux-aarch64.so.1").returncode != 0


@pytest.mark.parametrize("cpu", ARM_CPUS)
def test_every_processor(cpu: str) -> None:
    require(lacking_arm64())
    with running_phone("arm64", cpu) as phone:
        cpuinfo = phone("shell", "cat /proc/cpuinfo").stdout
        assert cpuinfo.strip() == arm_cpuinfo(cpu, cpuinfo.count("processor")).strip()
        assert phone("shell", "echo $QEMU_CPU").stdout.strip() == cpu


def test_an_unplugged_phone_is_lost_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require(lacking())
    with running_phone("amd64") as phone:
        use(phone, monkeypatch)
        device = AdbDevice(Adb(), phone.serial)
        device.run(["true"], timeout=30.0)
        phone.unplug()
        with pytest.raises(DeviceError, match=phone.serial):
            device.run(["true"], timeout=30.0)


def test_a_full_phone_says_so_and_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require(lacking())
    (tmp_path / "large").write_bytes(bytes(8 << 20))
    with running_phone("amd64", storage="4m") as phone:
        use(phone, monkeypatch)
        with pytest.raises(DeviceError, match="is full"), AdbDevice(Adb(), phone.serial) as device:
            device.push(tmp_path / "large", "large")
        assert phone("shell", "ls /data/local/tmp").stdout == ""


def test_a_phone_ends_with_its_block() -> None:
    require(lacking())
    with running_phone("amd64") as phone:
        folder = phone.adb.parents[2]
        assert _commands_with(str(folder))
    assert not _commands_with(str(folder))


def _commands_with(word: str) -> list[str]:
    """Command lines of this machine's processes that hold a word."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.append((process / "cmdline").read_text())
    return [command for command in found if word in command]
