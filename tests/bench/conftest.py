"""What the tests of measuring share: the real runner, real results of a tiny model, and test phones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from devices.phone_fixtures import adb, adb_server, attach, phone
from lite_runtime.bench import Bench
from lite_runtime.bench_plan import BenchOptions, Plan, make_plan
from lite_runtime.bench_result import BenchResult
from lite_runtime.bundle import open_bundle
from lite_runtime.device import Device
from lite_runtime.host_device import HostDevice
from lite_runtime.runner_folder import RunnerFolder
from web_pages import find_browser

__all__ = ["adb", "adb_server", "attach", "phone"]

# Small enough for a test, with enough pairs for a ratio.
QUICK = BenchOptions(tokens=12, sentences=3, rounds=8)


@pytest.fixture(scope="session")
def runner(runner_folder: RunnerFolder) -> Path:
    """This computer's native runner."""
    return runner_folder.folder


@pytest.fixture(scope="session")
def browser() -> str:
    """A browser that opens pages without a screen."""
    return find_browser()


@pytest.fixture(scope="session")
def plan(tiny_bundle: Path) -> Plan:
    """A bundle against itself."""
    bundle = open_bundle(tiny_bundle)
    return make_plan([bundle], bundle, QUICK)


@pytest.fixture
def bench(plan: Plan, runner: Path, tmp_path: Path) -> Callable[[Device], Bench]:
    """A measurement of ``plan`` on a device."""
    return lambda device: Bench(plan, device, runner, tmp_path / "result.journal.jsonl")


@pytest.fixture(scope="session")
def result(plan: Plan, runner: Path, tmp_path_factory: pytest.TempPathFactory) -> BenchResult:
    """Measured on this machine."""
    folder = tmp_path_factory.mktemp("result")
    with HostDevice() as device:
        measured, journal = Bench(plan, device, runner, folder / "journal.jsonl").run()
    journal.remove()
    return measured


@pytest.fixture
def result_file(result: BenchResult, tmp_path: Path) -> Path:
    path = tmp_path / "measured.json"
    path.write_text(result.model_dump_json(), "utf8")
    return path


@pytest.fixture
def emulated_file(result: BenchResult, tmp_path: Path) -> Path:
    """The same, as it would be from under qemu: what the device says of itself is changed, no figure is."""
    content = json.loads(result.model_dump_json())
    content["device"].update(name="adb:arm64", abi="arm64-v8a", emulated="runs under qemu-user")
    path = tmp_path / "emulated.json"
    path.write_text(json.dumps(content), "utf8")
    return path
