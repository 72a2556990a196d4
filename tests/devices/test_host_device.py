"""This machine as a device, and what is read from /proc, /sys and macOS's tools."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from devices.waiting import assert_still
from lite_runtime.device import Completed, Device, DeviceError, DeviceFacts, check_abi
from lite_runtime.devices import find_device
from lite_runtime.host_device import HostDevice
from lite_runtime.linux_readings import core_count, cpu_model, governors, hottest, total_memory, translated_by
from lite_runtime.macos_readings import battery_condition

FACTS = DeviceFacts(name="adb:1", abi="arm64-v8a", system="Android 14")


def sizes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_host_is_a_device_and_tells_what_it_is() -> None:
    device = find_device("host")
    assert isinstance(device, Device)
    facts = device.facts()
    assert facts.name == "host"
    assert facts.abi == platform.machine()
    assert facts.cores is not None and 1 <= facts.cores <= (os.cpu_count() or 1)
    assert facts.memory is not None and facts.memory > 2**28
    condition = device.condition()
    assert condition.battery is None or 0 <= condition.battery <= 100


def test_only_what_changed_is_copied_and_what_is_gone_goes(bundle: Path) -> None:
    with HostDevice() as device:
        assert device.push(bundle, "b") == sizes(bundle)
        assert device.push(bundle, "b") == 0
        (bundle / "the files" / "weights").unlink()
        (bundle / "new").write_text("new")
        assert device.push(bundle, "b") == 3
        assert sorted(path.name for path in (device.workspace / "b").rglob("*")) == ["new", "program", "the files"]
        # A file beside others leaves them alone.
        assert device.push(bundle / "new", "b/other") == 3
        assert (device.workspace / "b" / "program").exists()


def test_commands_run_in_the_workspace(bundle: Path) -> None:
    with HostDevice() as device:
        device.push(bundle, "b")
        done = device.run(["b/program", "3"], 10.0, {"SETTING": "it's set"})
        assert done == Completed(3, "out 3\n", "err it's set\n")
        assert device.run(["pwd"], 10.0).stdout.strip() == str(device.workspace)
        assert device.run(["sh", "-c", "kill -SEGV $$"], 10.0).exit_code == -11
        assert device.run(["./missing"], 10.0).exit_code == 127
        assert device.run(["b/the files/weights"], 10.0).exit_code == 126


def test_a_command_that_takes_too_long_is_stopped_with_its_children(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    child = f"while :; do echo x >> {alive}; sleep 0.05; done"
    with HostDevice() as device, pytest.raises(DeviceError, match=r"sh did not end within 0.4 s on host"):
        device.run(["sh", "-c", f"({child}) & wait"], 0.4)
    assert_still(alive)


def test_results_are_pulled_and_nothing_is_left(bundle: Path, tmp_path: Path) -> None:
    with HostDevice() as device:
        workspace = device.workspace
        device.push(bundle, "b")
        device.pull("b/program", tmp_path / "results" / "program")
        assert (tmp_path / "results" / "program").read_text() == (bundle / "program").read_text()
        with pytest.raises(DeviceError, match=r"no result.json on host"):
            device.pull("result.json", tmp_path / "x")
        device.remove("b/program")
        device.remove("b/program")
        assert not (workspace / "b" / "program").exists()
    assert not workspace.exists()
    assert os.listdir(tmp_path / "results") == ["program"]


@pytest.mark.parametrize("remote", ["../x", "/etc", "a/../../b"])
def test_nothing_leads_out_of_the_workspace(remote: str, bundle: Path) -> None:
    with HostDevice() as device:
        for call in (lambda: device.push(bundle, remote), lambda: device.remove(remote)):
            with pytest.raises(DeviceError, match=r"leads out of the device's workspace"):
                call()


def test_what_cannot_be_pushed_is_named(bundle: Path) -> None:
    (bundle / "a\nb").write_text("")
    with HostDevice() as device:
        with pytest.raises(DeviceError, match="without backslashes and control characters"):
            device.push(bundle, "b")
        with pytest.raises(DeviceError, match="no such file or folder, nothing was pushed"):
            device.push(bundle / "missing", "b")


def test_a_failure_shows_the_signal_and_the_last_lines() -> None:
    assert Completed(0, "", "warning").failure() is None
    said = "".join(f"line {number}\n" for number in range(50))
    shown = Completed(-11, "", said).failure()
    assert shown is not None
    assert shown.startswith("ended by SIGSEGV")
    assert "line 49" in shown and "line 39" not in shown
    assert Completed(2, "", "").failure() == "exit code 2; it said nothing"


@pytest.mark.parametrize("abi", ["arm64-v8a", "linux-arm64", "android-arm64", "aarch64"])
def test_a_runner_for_the_same_processor_is_right(abi: str) -> None:
    check_abi(FACTS, abi)


@pytest.mark.parametrize("abi", ["x86_64", "linux-x86_64", "armeabi-v7a"])
def test_a_runner_for_another_processor_is_refused(abi: str) -> None:
    with pytest.raises(DeviceError, match=f"adb:1 is arm64-v8a .*built for {abi}: use one built for arm64"):
        check_abi(FACTS, abi)


def test_readings_of_linux() -> None:
    assert hottest(["41000\n", "-274000", "38", "nothing", "200000"]) == 41.0
    assert hottest([]) is None
    assert governors(["schedutil\n", "schedutil", ""]) == "schedutil"
    assert governors([]) is None
    assert core_count("0-3,6\n") == 5
    assert core_count("") is None
    assert total_memory("MemTotal:        8000000 kB\nMemFree: 1 kB") == 8_192_000_000
    assert cpu_model("processor\t: 0\nmodel name\t: Some CPU\n") == "Some CPU"


def test_code_for_another_processor_is_emulated() -> None:
    assert translated_by("x86_64", "vendor_id : GenuineIntel\nmodel name : Xeon") is None
    assert translated_by("arm64-v8a", "CPU implementer : 0x41") is None
    assert "translated" in (translated_by("aarch64", "vendor_id\t: AuthenticAMD") or "")
    assert "QEMU TCG" in (translated_by("x86_64", "model name\t: QEMU TCG CPU version 2.5+") or "")


def test_readings_of_macos() -> None:
    listed = " -InternalBattery-0 (id=4522083)\t81%; {}; 3:12 remaining present: true"
    charged = battery_condition("Now drawing from 'AC Power'\n" + listed.format("charging"))
    assert (charged.battery, charged.charging) == (81.0, True)
    assert battery_condition("Now drawing from 'Battery Power'\n" + listed.format("discharging")).charging is False
    assert battery_condition("Now drawing from 'AC Power'\n").battery is None
