"""Fixtures: test phones, attached to an adb server that only the tests know. A conftest imports those it offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from devices.daemon_phone import DaemonPhone, PrivateAdb, private_adb, require_namespaces

PhoneMaker = Callable[..., DaemonPhone]


@pytest.fixture(scope="session")
def adb_server() -> Iterator[PrivateAdb]:
    with private_adb() as adb:
        yield adb


@pytest.fixture
def adb(adb_server: PrivateAdb, monkeypatch: pytest.MonkeyPatch) -> PrivateAdb:
    """The server that ``Adb()`` finds during the test."""
    for name in ("ANDROID_SERIAL", "ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in adb_server.environment.items():
        monkeypatch.setenv(name, value)
    return adb_server


@pytest.fixture
def attach(adb: PrivateAdb, tmp_path: Path) -> Iterator[PhoneMaker]:
    """Make a phone (arguments as of ``DaemonPhone``, without its root), attached until the test ends."""
    require_namespaces()
    with ExitStack() as stack:

        def make(**settings: Any) -> DaemonPhone:
            root = tmp_path / f"phone{len(list(tmp_path.glob('phone*')))}"
            phone = stack.enter_context(DaemonPhone(root, **settings))
            stack.enter_context(adb.attached(phone))
            return phone

        yield make


@pytest.fixture
def phone(attach: PhoneMaker) -> DaemonPhone:
    """One phone without a fault."""
    return attach()
