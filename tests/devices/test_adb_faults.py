"""All that goes wrong with phones and adb: a clear message with the fix, and nothing left behind."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from devices.adb_daemon import Faults
from devices.daemon_phone import DaemonPhone, PrivateAdb, free_port
from devices.phone_fixtures import PhoneMaker
from lite_runtime.adb import Adb, client_version, server_address
from lite_runtime.adb_device import AdbDevice
from lite_runtime.device import DeviceError, check_abi
from lite_runtime.devices import find_device, find_devices

pytestmark = pytest.mark.usefixtures("adb")


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A folder of 4 MB."""
    folder = tmp_path / "big"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_bytes(os.urandom(2_000_000))
    return folder


def test_no_adb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setitem(sys.modules, "adbutils", None)
    with pytest.raises(DeviceError, match=r"no adb: pip install 'lite-export\[android\]'"):
        find_device("adb")


def test_the_user_s_own_adb_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, adb: PrivateAdb) -> None:
    own = tmp_path / "platform-tools" / "adb"
    own.parent.mkdir()
    own.symlink_to(adb.binary)
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path))
    assert Adb().binary == own


def test_no_phone() -> None:
    with pytest.raises(DeviceError, match="no phone is attached: plug one in with USB debugging on"):
        find_device("adb")
    with pytest.raises(DeviceError, match="no phone is attached"):
        find_devices(["adb:all"])


def test_an_unknown_serial_lists_those_there_are(phone: DaemonPhone) -> None:
    with pytest.raises(DeviceError, match=rf"no phone has the serial X1; there are: {phone.serial} \(Test Phone\)"):
        find_device("adb:X1")


def test_two_phones_and_no_serial(attach: PhoneMaker) -> None:
    first, second = attach(model="One"), attach(model="Two")
    with pytest.raises(DeviceError, match="2 phones are attached: choose one with adb:SERIAL") as caught:
        find_device("adb")
    assert first.serial in str(caught.value) and second.serial in str(caught.value)


def test_unauthorised(attach: PhoneMaker) -> None:
    locked = attach(faults=Faults(unauthorized=True))
    with pytest.raises(DeviceError, match=f"{locked.serial} is unauthorized: unlock it and accept"):
        find_device("adb")
    # One that is not ready is not passed over in silence.
    attach()
    with pytest.raises(DeviceError, match="is unauthorized"):
        find_devices(["adb:all"])


def test_offline(phone: DaemonPhone) -> None:
    phone.unplug()
    with pytest.raises(DeviceError, match=f"{phone.serial} is offline: plug it in again"):
        find_device("adb")


def test_unplugged_in_mid_push(attach: PhoneMaker, adb: PrivateAdb, big: Path) -> None:
    phone = attach(faults=Faults(vanish_after_pushed=1_000_000))
    cut = pytest.raises(DeviceError, match=r"went away while 4.0 MB were pushed; it is offline")
    with cut as caught, find_device("adb") as device:
        device.push(big, "b")
    # The message says what is left, and how to remove it once the phone is back.
    command = str(caught.value).partition(" goes with: adb ")[2].split()
    phone.go_wrong()
    phone.plug_in()
    with adb.attached(phone):
        assert any("staged" in name for name in phone.files)
        adb(*command)
        assert phone.files == ["lite-export"]
        with find_device("adb") as device:
            assert device.push(big, "b") == 4_000_000
    assert phone.files == []


def test_a_cut_push_leaves_the_old_files(attach: PhoneMaker, adb: PrivateAdb, big: Path) -> None:
    phone = attach()
    (big / "a").write_text("old")
    with find_device("adb", keep=True) as device:
        device.push(big, "b")
        (big / "a").write_bytes(os.urandom(2_000_000))
        phone.go_wrong(vanish_after_pushed=1)
        with pytest.raises(DeviceError, match="went away"):
            device.push(big, "b")
    phone.go_wrong()
    phone.plug_in()
    with adb.attached(phone), find_device("adb", keep=True) as device:
        assert device.run(["cat", "b/a"], 10.0).stdout == "old"
        # Only what did not arrive is pushed again, and the staged half is gone.
        assert device.push(big, "b") == 2_000_000
        assert [name for name in phone.files if "staged" in name] == []


def test_unplugged_in_mid_run(attach: PhoneMaker) -> None:
    phone = attach(faults=Faults(vanish_after_running=0.4))
    alive = phone.root / "data/local/tmp/alive"
    script = "while :; do echo x >> /data/local/tmp/alive; sleep 0.05; done"
    cut = pytest.raises(DeviceError, match=r"went away while sh ran; it is offline.*goes with: adb -s")
    with cut, find_device("adb") as device:
        device.run(["sh", "-c", script], 20.0)
    # The phone itself stopped the command and removed what was pushed.
    deadline = time.monotonic() + 5
    while phone.files != ["alive"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert phone.files == ["alive"]
    size = alive.stat().st_size
    time.sleep(0.3)
    assert alive.stat().st_size == size > 0


def test_one_that_is_no_longer_listed(phone: DaemonPhone, adb: PrivateAdb) -> None:
    timer = threading.Timer(0.5, adb, ["disconnect", phone.serial])
    timer.start()
    with pytest.raises(DeviceError, match="went away while sleep ran; it is no longer listed: plug it in again"):
        find_device("adb").run(["sleep", "20"], 30.0)
    timer.join()


def test_exit_code_1_is_no_lost_phone(phone: DaemonPhone) -> None:
    with find_device("adb") as device:
        done = device.run(["sh", "-c", "echo 'error: device offline' >&2; exit 1"], 10.0)
    assert (done.exit_code, done.stderr) == (1, "error: device offline\n")


def test_the_phone_s_disk_is_full(attach: PhoneMaker, adb: PrivateAdb, big: Path) -> None:
    phone = attach(disk=1_000_000)
    device = find_device("adb")
    with pytest.raises(DeviceError, match=f"{phone.serial} is full, while 4.0 MB were pushed: free some space"):
        device.push(big, "b")
    assert "staged" not in adb("-s", phone.serial, "shell", "ls -aR /data/local/tmp")
    device.remove()
    assert adb("-s", phone.serial, "shell", "ls -A /data/local/tmp").split() == []


def test_damage_on_the_way_there(attach: PhoneMaker, big: Path) -> None:
    phone = attach(faults=Faults(damage_push=True))
    with find_device("adb") as device:
        with pytest.raises(DeviceError, match=r"a arrived damaged on adb:.*: try again, with another cable"):
            device.push(big, "b")
        assert [name for name in phone.files if "b" in name.split("/") or "staged" in name] == []


def test_results_cut_in_transit(attach: PhoneMaker, big: Path, tmp_path: Path) -> None:
    attach(faults=Faults(cut_pull=1000))
    target = tmp_path / "results" / "a"
    with find_device("adb") as device:
        device.push(big, "b")
        with pytest.raises(DeviceError, match=r"b/a arrived damaged from adb:"):
            device.pull("b/a", target)
        with pytest.raises(DeviceError, match=r"there is no result.json on adb:.*the command that writes it did not"):
            device.pull("result.json", target)
    assert os.listdir(target.parent) == []


def test_a_command_that_takes_too_long_is_stopped_there(phone: DaemonPhone, big: Path) -> None:
    alive = phone.root / "data/local/tmp/alive"
    loop = "while :; do echo x >> /data/local/tmp/alive; sleep 0.05; done"
    with find_device("adb") as device:
        device.push(big, "b")
        with pytest.raises(DeviceError, match=rf"sh did not end within 0.5 s on adb:{phone.serial}; it was stopped"):
            device.run(["sh", "-c", f"({loop}) & wait"], 0.5)
        size = alive.stat().st_size
        time.sleep(0.3)
        assert alive.stat().st_size == size > 0
        # The workspace is as it was, and takes the next command.
        assert device.run(["ls", "b"], 10.0).stdout.split() == ["a", "b"]
    assert phone.files == ["alive"]


def test_a_phone_that_does_not_answer(attach: PhoneMaker) -> None:
    phone = attach()
    device = AdbDevice(Adb(patience=1.0), phone.serial)
    phone.go_wrong(delay=30.0)
    with pytest.raises(DeviceError, match=r"gave no answer within 1 s while it was asked what it is: plug it in again"):
        device.facts()


def test_a_slow_phone_is_waited_for(attach: PhoneMaker, tmp_path: Path) -> None:
    attach(faults=Faults(delay=0.3))
    (tmp_path / "file").write_text("slow")
    with find_device("adb") as device:
        assert device.push(tmp_path / "file", "file") == 4
        assert device.run(["cat", "file"], 10.0).stdout == "slow"


def test_the_wrong_abi(attach: PhoneMaker) -> None:
    attach(properties={"ro.product.cpu.abi": "arm64-v8a"})
    facts = find_device("adb").facts()
    check_abi(facts, "linux-arm64")
    with pytest.raises(DeviceError, match=r"is arm64-v8a .* was built for linux-x86_64: use one built for arm64"):
        check_abi(facts, "linux-x86_64")


@pytest.fixture
def foreign_server() -> Iterator[tuple[int, list[bytes]]]:
    """Something that answers every question with version 40, and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(100))
                    connection.sendall(b"OKAY00040028")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield server.getsockname()[1], asked
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_server_of_another_version_is_left_alone(
    foreign_server: tuple[int, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, asked = foreign_server
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    with pytest.raises(DeviceError, match=rf"server on port {port} has version 40, .* has 41. It is left alone: set"):
        find_device("adb")
    # adb itself would have sent host:kill next.
    assert asked == [b"000chost:version"]


def test_a_port_that_is_not_adb_s(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def refuse() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(other.getsockname()[1]))
        with pytest.raises(DeviceError, match="used by something that is no adb server: set ANDROID_ADB_SERVER_PORT"):
            find_device("adb")
        thread.join()


def test_where_the_server_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDROID_ADB_SERVER_PORT")
    assert server_address() == ("127.0.0.1", 5037)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "many")
    with pytest.raises(DeviceError, match="must be a port number"):
        server_address()
    monkeypatch.setenv("ADB_SERVER_SOCKET", "tcp:there:5040")
    assert server_address() == ("there", 5040)
    assert client_version("Android Debug Bridge version 1.0.41\nVersion 36.0.0") == 41


def test_a_server_is_started_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, adb: PrivateAdb, attach: PhoneMaker
) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port := free_port()))
    try:
        assert Adb().devices() == ()
    finally:
        # A server that has just begun may hang when it is asked to end.
        for process in psutil.process_iter(["cmdline"]):
            if {f"tcp:{port}", "fork-server"} <= set(process.info["cmdline"] or ()):
                process.kill()
