"""The native runner at work, and other builds of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from native_runs import Run

from lite_runtime import runner_build, runner_sentencepiece
from lite_runtime.runner_build import build_runner, default_output
from lite_runtime.runner_folder import RunnerFolder


@pytest.fixture
def run(runner_folder: RunnerFolder, tmp_path: Path) -> Run:
    return Run(runner_folder, tmp_path)


@pytest.fixture(scope="session")
def plain_runner(runner_folder: RunnerFolder) -> RunnerFolder:
    """What a computer builds that has ONNX Runtime only; compiled again only if its sources changed."""
    target, package = runner_folder.note.target, runner_build._package
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner_build, "_package", lambda name: package(name) if name == "onnxruntime" else None)
        patch.setattr(runner_sentencepiece, "_SYSTEM", ())
        return build_runner(target, default_output(f"{target}-plain"))
