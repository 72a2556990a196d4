"""Ctrl-C while a command is being started, on this machine and on a phone: the command does not outlive it."""

from __future__ import annotations

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from devices.daemon_phone import DaemonPhone
from devices.waiting import assert_still, wait_until
from lite_runtime.devices import find_device
from lite_runtime.host_device import HostDevice
from lite_runtime.interrupts import held_interrupts


def write_for_ever(path: Path | str) -> list[str]:
    return ["sh", "-c", f"while :; do echo x >> {path}; sleep 0.05; done"]


@pytest.fixture
def alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A file, of a phone where the test has one: Ctrl-C comes when a command writes to it and nobody yet knows it."""
    phone = request.getfixturevalue("phone") if "phone" in request.fixturenames else None
    written: Path = (phone.root / "data/local/tmp" if phone else tmp_path) / "alive"

    class Interrupted(subprocess.Popen[str]):
        def __init__(self, command: Any, **options: Any) -> None:
            super().__init__(command, **options)
            if any("echo x >>" in word for word in command):
                wait_until(lambda: written.exists() and written.stat().st_size > 0)
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    return written


def test_on_the_host(alive: Path) -> None:
    with HostDevice() as device, pytest.raises(KeyboardInterrupt):
        device.run(write_for_ever(alive), 60.0)
    assert_still(alive)


def test_on_a_phone(phone: DaemonPhone, alive: Path) -> None:
    with find_device("adb") as device, pytest.raises(KeyboardInterrupt):
        device.run(write_for_ever("/data/local/tmp/alive"), 60.0)
    assert_still(alive)
    assert phone.files == ["alive"]


def test_what_came_acts_at_the_end_and_as_it_did_before() -> None:
    came = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append("handled"))
    try:
        with held_interrupts():
            signal.raise_signal(signal.SIGINT)
            assert came == []
        assert came == ["handled"]
        with held_interrupts() as let_through:
            let_through()
            signal.raise_signal(signal.SIGINT)
            assert came == ["handled", "handled"]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_failure_inside_is_not_lost() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(FileNotFoundError), held_interrupts():
        raise FileNotFoundError
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_are_never_interrupted() -> None:
    def hold() -> str:
        with held_interrupts() as let_through:
            let_through()
            return "done"

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(hold).result() == "done"
