"""What the tests of devices share: phones, and a folder to push."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.phone_fixtures import adb, adb_server, attach, phone

__all__ = ["adb", "adb_server", "attach", "bundle", "phone"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder to push: a program, and a file in a folder whose name has a space."""
    folder = tmp_path / "bundle"
    (folder / "the files").mkdir(parents=True)
    (folder / "the files" / "weights").write_bytes(bytes(range(256)) * 400)
    program = folder / "program"
    program.write_text('#!/bin/sh\necho "out $1"\necho "err $SETTING" >&2\nexit "$1"\n')
    program.chmod(0o755)
    return folder
