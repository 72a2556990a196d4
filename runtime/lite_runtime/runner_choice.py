"""The native runner for a device, where none was named: built once, and kept in the user's cache."""

from __future__ import annotations

from lite_runtime.device import DeviceError, DeviceFacts, check_abi
from lite_runtime.runner_build import build_runner, default_output, default_target
from lite_runtime.runner_downloads import Report
from lite_runtime.runner_folder import RunnerFolder, open_runner


def runner_for(facts: DeviceFacts, report: Report = lambda line: None) -> RunnerFolder:
    """This computer's own; for a phone the one built with an NDK, else the one that brings its own C library.

    Raises:
        RunnerBuildError: it cannot be built here.
        DeviceError: there is none for such a device.
    """
    if facts.name == "host":
        target = default_target()
        return build_runner(target, default_output(target), report)
    check_abi(facts, "arm64-v8a")
    try:
        return open_runner(default_output("android-arm64"))
    except DeviceError:
        return build_runner("linux-arm64", default_output("linux-arm64"), report)
