"""The native runner at work."""

from __future__ import annotations

from pathlib import Path

import pytest
from native_runs import Run

from lite_runtime.runner_folder import RunnerFolder


@pytest.fixture
def run(runner_folder: RunnerFolder, tmp_path: Path) -> Run:
    return Run(runner_folder, tmp_path)
