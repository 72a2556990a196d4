"""A phone over the real adb: discovery, facts, files, commands, and five of them at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devices.daemon_phone import DaemonPhone
from devices.phone_fixtures import PhoneMaker
from devices.waiting import assert_still, wait_until
from lite_runtime.adb import Adb, parse_devices
from lite_runtime.adb_device import ROOT, AdbDevice
from lite_runtime.android_readings import CONDITION_ASKED, FACTS_ASKED, android_condition, android_facts
from lite_runtime.device import Completed, Condition, Device, DeviceError
from lite_runtime.devices import find_device, find_devices

LISTING = """* daemon started successfully
List of devices attached
R58M123ABCD            device usb:1-4 product:o1s model:SM_G991B device:o1s transport_id:3
192.168.1.5:5555       offline product:x model:Y device:z transport_id:4
0a388e93               unauthorized usb:1-1 transport_id:5
0a388e94               no permissions (user in plugdev group; are your udev rules wrong?); see [http://x.y] usb:1-2
"""


def test_adb_s_list_is_understood() -> None:
    phones = parse_devices(LISTING)
    assert [(phone.serial, phone.state) for phone in phones] == [
        ("R58M123ABCD", "device"),
        ("192.168.1.5:5555", "offline"),
        ("0a388e93", "unauthorized"),
        ("0a388e94", "no permissions"),
    ]
    assert [phone.ready for phone in phones] == [True, False, False, False]
    assert phones[0].details["usb"] == "1-4"
    assert str(phones[0]) == "R58M123ABCD (SM G991B)"
    assert str(phones[1]) == "192.168.1.5:5555 (Y, offline)"
    assert "udev" in phones[3].fix


def test_a_phone_tells_what_it_is(phone: DaemonPhone) -> None:
    device = find_device("adb")
    assert isinstance(device, Device)
    facts = device.facts()
    assert facts.name == f"adb:{phone.serial}"
    assert (facts.model, facts.soc, facts.system) == ("Lite Test Phone", "Lite TP1", "Android 14")
    assert facts.governor == "performance, schedutil"
    assert facts.cores is not None and facts.cores >= 1
    assert facts.memory is not None and facts.memory > 2**28
    assert facts.emulated == "a test phone: commands run on the machine that tests"


def test_a_phone_tells_how_it_is_in_one_round_trip(phone: DaemonPhone) -> None:
    device = find_device("adb")
    before = phone.round_trips
    # The sensors of the thermal service count, its percentages and its cache do not.
    assert device.condition() == Condition(
        thermal_status=1, temperature=38.6, battery=78.0, charging=True, energy=2797000
    )
    assert phone.round_trips == before + 1


def test_what_a_phone_does_not_tell_is_none(phone: DaemonPhone) -> None:
    (phone.root / "system/bin/dumpsys").unlink()
    zones = phone.root / "sys/class/thermal"
    assert find_device("adb").condition() == Condition(temperature=41.0)
    for zone in zones.glob("*/temp"):
        zone.unlink()
    assert find_device("adb").condition() == Condition()


@pytest.mark.parametrize(
    ("properties", "cpuinfo", "reason"),
    [
        ("[ro.kernel.qemu]: [1]", "", "an Android emulator (qemu)"),
        ("[ro.hardware]: [ranchu]", "", "an Android emulator (ranchu)"),
        ("[ro.product.cpu.abi]: [arm64-v8a]", "vendor_id\t: GenuineIntel", "arm64-v8a code is translated"),
        ("[ro.product.cpu.abi]: [arm64-v8a]\n[ro.hardware]: [qcom]", "CPU implementer\t: 0x41", None),
    ],
)
def test_emulators_are_recognised(properties: str, cpuinfo: str, reason: str | None) -> None:
    answers = {**dict.fromkeys(FACTS_ASKED, ""), "properties": properties, "cpuinfo": cpuinfo}
    emulated = android_facts("adb:x", answers).emulated
    assert emulated is None if reason is None else emulated is not None and emulated.startswith(reason)


def test_a_maker_s_own_battery_section_is_passed_over() -> None:
    battery = (
        "Current OPLUS Battery Service state:\n  level: 1\n  Charge counter: 7\n"
        "Current Battery Service state:\n  AC powered: false\n  Charge counter: 0\n  level: 50\n  scale: 100\n"
        " The last temperature value sent: 99\n  temperature: 328\n"
    )
    condition = android_condition({**dict.fromkeys(CONDITION_ASKED, ""), "battery": battery})
    assert condition == Condition(temperature=32.8, battery=50.0, charging=False, energy=None)


def test_only_what_changed_is_pushed(phone: DaemonPhone, bundle: Path) -> None:
    size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    with find_device("adb") as device:
        assert device.push(bundle, "b") == size
        before = phone.round_trips
        assert device.push(bundle, "b") == 0
        assert phone.round_trips == before + 1
        (bundle / "the files" / "weights").write_bytes(b"other")
        (bundle / "program").rename(bundle / "tool")
        assert device.push(bundle, "b") == 5 + (bundle / "tool").stat().st_size
        assert device.push(bundle / "tool", "b/beside") > 0
        found = device.run(["find", "b", "-type", "f"], 10.0).stdout.splitlines()
        assert sorted(found) == ["b/beside", "b/the files/weights", "b/tool"]
        assert device.run(["cat", "b/the files/weights"], 10.0).stdout == "other"
    assert phone.files == []


def test_a_changed_file_costs_few_round_trips(phone: DaemonPhone, bundle: Path) -> None:
    for number in range(30):
        (bundle / f"file{number}").write_text(str(number))
    with find_device("adb") as device:
        before = phone.round_trips
        device.push(bundle, "b")
        # Hashes, room, the push, hashes of what arrived, into place.
        assert phone.round_trips - before <= 6


def test_links_are_pushed_as_what_they_point_to(phone: DaemonPhone, bundle: Path) -> None:
    (bundle / "link").symlink_to(bundle / "program")
    with find_device("adb") as device:
        device.push(bundle, "b")
        assert device.run(["b/link", "0"], 10.0).stdout == "out 0\n"


def test_a_kept_workspace_is_pushed_to_once(phone: DaemonPhone, bundle: Path) -> None:
    with find_device("adb", keep=True) as device:
        assert device.push(bundle, "b") > 0
    with find_device("adb", keep=True) as device:
        assert device.push(bundle, "b") == 0
        assert device.run(["b/program", "0"], 10.0).exit_code == 0
        device.remove()
    assert phone.files == []


def test_two_runs_do_not_meet(phone: DaemonPhone, bundle: Path) -> None:
    with find_device("adb") as first, find_device("adb") as second:
        first.push(bundle, "b")
        assert second.push(bundle, "b") > 0
        first.remove()
        assert second.run(["b/program", "0"], 10.0).exit_code == 0


def test_commands_run_in_the_workspace(phone: DaemonPhone, bundle: Path) -> None:
    with find_device("adb") as device:
        device.push(bundle, "b")
        done = device.run(["b/program", "3"], 10.0, {"SETTING": 'it\'s "set" $HOME'})
        assert done == Completed(3, "out 3\n", 'err it\'s "set" $HOME\n')
        assert device.run(["pwd"], 10.0).stdout.startswith(f"{ROOT}/")
        assert device.run(["./missing"], 10.0).exit_code == 127
        assert device.run(["sh", "-c", "printf a; printf b >&2; exit 255"], 10.0) == Completed(255, "a", "b")


@pytest.mark.parametrize("name", ["SEGV", "ABRT", "KILL", "ILL"])
def test_a_signal_is_told_from_an_exit_code(phone: DaemonPhone, name: str) -> None:
    with find_device("adb") as device:
        done = device.run(["sh", "-c", f"echo last words >&2; kill -{name} $$"], 10.0)
    assert done.exit_code == -signal.Signals[f"SIG{name}"]
    assert f"ended by SIG{name}" in (done.failure() or "")
    assert "last words" in (done.failure() or "")


def test_much_output_arrives_whole(phone: DaemonPhone) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo out$i; echo err$i >&2; i=$((i+1)); done"
    with find_device("adb") as device:
        done = device.run(["sh", "-c", script], 30.0)
    assert done.stdout == "".join(f"out{number}\n" for number in range(20000))
    assert done.stderr == "".join(f"err{number}\n" for number in range(20000))


def test_results_are_pulled(phone: DaemonPhone, tmp_path: Path) -> None:
    with find_device("adb") as device:
        device.run(["sh", "-c", "mkdir out && head -c 300000 /dev/urandom > 'out/a result'"], 10.0)
        target = tmp_path / "results" / "mine"
        device.pull("out/a result", target)
        hashed = device.run(["sha256sum", "out/a result"], 10.0).stdout.split()[0]
    assert target.stat().st_size == 300000
    assert subprocess.run(["sha256sum", target], capture_output=True, text=True, check=True).stdout.split()[0] == hashed
    assert os.listdir(target.parent) == ["mine"]


def test_removing_is_thorough_and_may_be_repeated(phone: DaemonPhone, bundle: Path) -> None:
    device = find_device("adb")
    device.push(bundle, "b")
    device.remove("b/program")
    device.remove("b/program")
    assert [name for name in phone.files if name.endswith("program")] == []
    device.remove()
    device.remove()
    assert phone.files == []
    with pytest.raises(DeviceError, match=r"leads out of the device's workspace"):
        device.remove("../kept")


CHILD = """
import sys
from lite_runtime.devices import find_device
with find_device("adb") as device:
    print("begun", flush=True)
    device.run(["sh", "-c", "while :; do echo x >> /data/local/tmp/alive; sleep 0.05; done"], 60.0)
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_harness_leaves_nothing(phone: DaemonPhone, ending: signal.Signals) -> None:
    alive = phone.root / "data/local/tmp/alive"
    child = subprocess.Popen([sys.executable, "-c", CHILD], stderr=subprocess.DEVNULL)
    wait_until(lambda: alive.exists() and alive.stat().st_size > 10)
    child.send_signal(ending)
    assert child.wait(timeout=20) != 0
    if ending == signal.SIGKILL:
        # Its adb goes on by itself until someone ends it: the phone is told by the cable.
        phone.unplug()
    wait_until(lambda: phone.files == ["alive"])
    assert_still(alive)


def test_devices_are_named_by_commas_and_repetition(attach: PhoneMaker) -> None:
    serials = [attach().serial for _ in range(2)]
    names = [f"adb:{serial}" for serial in serials]
    found = find_devices([f"host, {names[1]}", names[0], "host"])
    assert [device.name for device in found] == ["host", names[1], names[0]]
    assert {device.name for device in find_devices(["adb:all"])} == set(names)
    with pytest.raises(DeviceError, match="choose one"):
        find_device("adb:all")
    for wrong in ("", "phone", "adb:"):
        with pytest.raises(DeviceError, match="say host, adb or adb:SERIAL"):
            find_device(wrong)


def test_android_serial_chooses_as_for_adb(attach: PhoneMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = attach(), attach()
    monkeypatch.setenv("ANDROID_SERIAL", second.serial)
    assert find_device("adb").name == f"adb:{second.serial}"
    assert find_device(f"adb:{first.serial}").name == f"adb:{first.serial}"


@pytest.mark.measures
def test_five_phones_work_at_once(attach: PhoneMaker, tmp_path: Path) -> None:
    phones = [attach(model=f"Phone_{number}") for number in range(5)]
    adb = Adb()

    def work(phone: DaemonPhone) -> str:
        """Push, sleep, pull: what each pulls is its own."""
        source, target = tmp_path / f"in{phone.port}", tmp_path / f"out{phone.port}"
        source.write_text(f"for {phone.serial}")
        with AdbDevice(adb, phone.serial) as device:
            device.push(source, "in")
            assert device.run(["sh", "-c", "sleep 2.5; cat in > out"], 20.0).exit_code == 0
            device.pull("out", target)
        return target.read_text()

    started = time.monotonic()
    work(phones[0])
    one = time.monotonic() - started
    with ThreadPoolExecutor(max_workers=5) as pool:
        started = time.monotonic()
        results = list(pool.map(work, phones))
        five = time.monotonic() - started
    assert results == [f"for {phone.serial}" for phone in phones]
    print(f"one phone {one:.2f} s, five at once {five:.2f} s")
    assert five < 2 * one, f"{five:.2f} s for five, {one:.2f} s for one"
    assert all(phone.files == [] for phone in phones)
