"""What every test shares: one thread, and the golden models of the original system."""

from __future__ import annotations

import pytest
import torch
from reference_models import Golden, load_golden

torch.set_num_threads(1)


@pytest.fixture(scope="session", params=["mt_dynamic_glu", "mt_lightweight"])
def golden(request: pytest.FixtureRequest) -> Golden:
    """Each translation model of tests/golden, in legacy padding."""
    return load_golden(request.param)


@pytest.fixture(scope="session")
def golden_lm() -> Golden:
    """The language model of tests/golden."""
    return load_golden("lm_dynamic_adaptive")
