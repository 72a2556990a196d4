"""The form for XNNPACK computes what the export form computes, for every kind of model."""

from __future__ import annotations

import pytest
import torch
from test_export_form import CONFIGS
from torch import nn

from lite_export.flavours import Slots
from lite_export.graphs import EncodeGraph, StepGraph, state_specs
from lite_export.xnnpack_form import ApartEncode, apart_step
from tiny_models import lively_model

SLOTS = 12


@pytest.mark.parametrize("kind", CONFIGS)
@torch.inference_mode()
def test_encode_and_step_equal_the_export_form(kind: str) -> None:
    model = lively_model(CONFIGS[kind].model_copy(update={"max_target": SLOTS}))
    source = torch.randint(4, 160, (1, 9), generator=torch.Generator().manual_seed(1))
    source[:, 7:] = 1
    mask = source != 1
    wanted, found = EncodeGraph(model, Slots(SLOTS))(source, mask), ApartEncode(model)(source, mask)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)
    generator = torch.Generator().manual_seed(2)
    changing = [s for s in state_specs(model.config, slots=SLOTS) if s.output]
    state = [torch.randn([int(n) for n in s.shape], generator=generator) for s in changing]
    fixed = wanted[: len(wanted) - model.config.encoder.layers] if model.config.encoder else ()
    for position in (0, 5, SLOTS - 1):
        given = (torch.tensor([7]), torch.tensor([position]), *state, *fixed)
        torch.testing.assert_close(
            apart_step(model)(*given), StepGraph(model, Slots(SLOTS))(*given), atol=2e-5, rtol=1e-5
        )


def test_the_caller_keeps_its_model() -> None:
    model = lively_model(CONFIGS["lightweight pre"])
    step = apart_step(model)
    assert any(isinstance(m, nn.LayerNorm) for m in model.modules())
    assert not any(isinstance(m, nn.LayerNorm) for m in step.modules())
    assert model.decoder.projection.weight is model.decoder.embedding.weight
