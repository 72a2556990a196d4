"""Test phones as pytest fixtures, one of each kind a session. Import those that are used into a conftest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lite_runtime.adb_device import AdbDevice, find_phone
from lite_runtime.runner_build import build_runner, default_output
from lite_runtime.runner_downloads import RunnerBuildError
from lite_runtime.runner_folder import RunnerFolder
from phones.machine import lacking, lacking_arm64
from phones.phone import Phone, running_phone
from requirements import require

# What a phone of 2016 has: no int8 dot product, so that the widening kernels run, where saturation bugs were.
COMMON_CPU = "cortex-a53"


def use(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process find the phone's adb as it would a user's."""
    for name, value in phone.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def real_adbd() -> Iterator[Phone]:
    """AOSP's adbd over a userland of this machine's architecture. Read only: what a test pushes it removes."""
    require(lacking())
    with running_phone("amd64") as phone:
        yield phone


@pytest.fixture(scope="session")
def arm64_phone() -> Iterator[Phone]:
    """AOSP's adbd over an arm64 userland under qemu-user."""
    require(lacking_arm64())
    with running_phone("arm64", COMMON_CPU) as phone:
        yield phone


@pytest.fixture(scope="module")
def arm64_device(arm64_phone: Phone) -> Iterator[AdbDevice]:
    """The arm64 phone, as a user's process finds it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(arm64_phone, monkeypatch)
        with find_phone() as found:
            yield found


@pytest.fixture(scope="session")
def arm64_runner() -> RunnerFolder:
    """The native runner for phones, with its own C library; kept in the user's cache."""
    try:
        return build_runner("linux-arm64", default_output("linux-arm64"))
    except RunnerBuildError as error:
        require(f"the arm64 runner cannot be built here: {error}")
        raise
