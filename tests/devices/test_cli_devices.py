"""``lite-export devices``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from devices.adb_daemon import Faults
from devices.daemon_phone import DaemonPhone
from devices.phone_fixtures import PhoneMaker
from lite_export.cli import app

runner = CliRunner()


def test_every_device_is_listed_with_what_to_do(attach: PhoneMaker) -> None:
    ready, locked, cut = attach(), attach(faults=Faults(unauthorized=True)), attach()
    cut.unplug()
    result = runner.invoke(app, ["devices", "--json"])
    assert result.exit_code == 0, result.output
    listed = {device["name"]: device for device in json.loads(result.stdout)["devices"]}
    assert next(iter(listed)) == "host"
    assert listed["host"]["facts"]["cores"] >= 1
    assert listed[f"adb:{ready.serial}"]["facts"]["model"] == "Lite Test Phone"
    assert listed[f"adb:{ready.serial}"]["condition"]["battery"] == 78.0
    assert listed[f"adb:{locked.serial}"]["state"] == "unauthorized"
    assert "accept 'Allow USB debugging'" in listed[f"adb:{locked.serial}"]["fix"]
    assert listed[f"adb:{cut.serial}"]["state"] == "offline"


def test_the_table_shows_each_and_says_what_is_emulated(attach: PhoneMaker) -> None:
    ready, locked = attach(), attach(faults=Faults(unauthorized=True))
    result = runner.invoke(app, ["devices"])
    assert result.exit_code == 0, result.output
    for text in ("host", ready.serial, "Android 14", "78 %", "39 °C"):
        assert text in result.stdout
    assert f"adb:{locked.serial} is unauthorized: unlock it" in result.stdout
    assert f"adb:{ready.serial}: its times are no measurements: a test phone" in result.stdout


def test_without_adb_the_host_is_listed(adb: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "adbutils", None)
    result = runner.invoke(app, ["devices"])
    assert result.exit_code == 0
    assert "host" in result.stdout
    assert "no adb: pip install 'lite-export[android]'" in result.stdout


def test_a_phone_that_goes_away_while_it_is_asked_is_listed_too(phone: DaemonPhone) -> None:
    (phone.root / "system/bin/getprop").write_text("#!/bin/sh\nkill -KILL $PPID\n")
    result = runner.invoke(app, ["devices", "--json"])
    listed = json.loads(result.stdout)["devices"][1]
    assert listed["state"] == "not answering"
    assert "went away while it was asked what it is" in listed["fix"]
