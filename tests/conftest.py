"""What every test shares: one thread, the golden models of the original system, a tiny model and its bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kept_bundles import kept_bundle
from lite_export.bundle_writer import write_bundle
from lite_export.recipes import plan
from lite_runtime.bundle import Bundle
from lite_runtime.device import DeviceError
from lite_runtime.host_device import HostDevice
from lite_runtime.runner_choice import runner_for
from lite_runtime.runner_downloads import RunnerBuildError
from lite_runtime.runner_folder import RunnerFolder
from reference_models import Golden, load_golden
from requirements import require
from tiny_models import tiny_config, write_tiny_folder

torch.set_num_threads(1)


@pytest.fixture(scope="session", params=["mt_dynamic_glu", "mt_lightweight"])
def golden(request: pytest.FixtureRequest) -> Golden:
    """Each translation model of tests/golden, in legacy padding."""
    return load_golden(request.param)


@pytest.fixture(scope="session")
def golden_lm() -> Golden:
    """The language model of tests/golden."""
    return load_golden("lm_dynamic_adaptive")


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


@pytest.fixture(scope="session")
def native_bundle(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """What the native runner knows: both formats, both caches, int8. Read only: tests that change one copy it first."""
    recipes = [
        *plan(["onnx", "executorch"], ["fp32", "int8"], ["explicit"]),
        *plan(["executorch"], ["fp32"], ["stateful"]),
    ]
    return kept_bundle("native-bundle", tiny_folder, recipes, tmp_path_factory.mktemp("native") / "bundle")


@pytest.fixture(scope="session")
def runner_folder() -> RunnerFolder:
    """This computer's native runner: compiled again only if its sources or libraries changed."""
    try:
        return runner_for(HostDevice().facts())
    except (DeviceError, RunnerBuildError) as error:
        require(f"the native runner cannot be built here: {error}")
        raise
