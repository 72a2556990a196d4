"""A tiny but whole model folder, and the bundle exported from it once per test run."""

from __future__ import annotations

from pathlib import Path

import pytest
from lite_export.bundle_writer import write_bundle
from tiny_models import tiny_config, write_tiny_folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with lightweight convolution."""
    return write_tiny_folder(tmp_path_factory.mktemp("tiny") / "model", tiny_config())


@pytest.fixture(scope="session")
def tiny_bundle(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle exported from ``tiny_folder``. Read only: tests that change one copy it first."""
    target = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(tiny_folder, target)
    return target
