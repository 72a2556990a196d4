"""Costs: against a real model's parameters, torch's own flop counter, and the paper."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lite_transformer.config import ModelConfig
from lite_transformer.model import LiteTransformer
from lite_transformer.presets import PRESETS, preset
from lite_transformer.profile import profile
from reference_models import tiny_config

# Exact counts. The paper and its repository print them rounded: 90 / 360 / 527, 54 / 119 / 209 and 800M.
MULT_ADDS = {
    "wmt-en-fr-200": 89_952_000,
    "wmt-en-fr-408": 359_170_560,
    "wmt-en-fr-496": 526_990_080,
    "iwslt-de-en-160": 54_144_000,
    "iwslt-de-en-240": 119_232_000,
    "iwslt-de-en-320": 209_664_000,
    "cnn-dm-496": 798_520_320,
    "wikitext-103-896": 1_146_163_200,
}
# Millions: all, without embeddings (paper, tables 2 to 4).
PARAMETERS = {
    "wmt-en-fr-200": (11.79, 2.884),
    "wmt-en-fr-408": (29.90, 11.740),
    "wmt-en-fr-496": (39.36, 17.284),
    "wmt-en-de-200": (9.44, 2.884),
    "wmt-en-de-408": (25.11, 11.740),
    "wmt-en-de-496": (33.54, 17.284),
    "iwslt-de-en-160": (5.25, 1.714),
    "iwslt-de-en-240": (9.14, 3.837),
    "iwslt-de-en-320": (13.88, 6.805),
    "cnn-dm-496": (32.16, 17.284),
    "wikitext-103-896": (76.75, 37.182),
}


def on_meta(config: ModelConfig) -> LiteTransformer:
    with torch.device("meta"):
        return LiteTransformer(config).eval()


@pytest.mark.parametrize("name", MULT_ADDS)
def test_the_papers_mult_adds(name: str) -> None:
    assert profile(name).mult_adds == MULT_ADDS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_papers_parameters(name: str) -> None:
    counted = profile(name)
    total, body = PARAMETERS[name]
    assert round(counted.parameters / 1e6, 2) == total
    assert round(counted.body_parameters / 1e6, 3) == body


@pytest.mark.parametrize("name", PRESETS)
def test_rows_sum_to_a_real_models_parameters(name: str) -> None:
    counted = profile(name)
    assert counted.parameters == sum(p.numel() for p in on_meta(preset(name).config).parameters())
    assert len(counted.layers) == sum(
        stack.layers for stack in (preset(name).config.encoder, preset(name).config.decoder) if stack
    )


@pytest.mark.parametrize("embeddings", ["shared", "tied", "untied"])
def test_parameters_of_an_instantiated_model(embeddings: str) -> None:
    config = tiny_config("dynamic", embeddings=embeddings)
    assert profile(config).parameters == sum(p.numel() for p in LiteTransformer(config).parameters())


def flops(model: LiteTransformer, source: int, target: int) -> int:
    """Mult-Adds torch counts in a teacher-forced pair."""
    device = next(model.parameters()).device
    tokens = [torch.full((1, length), 5, device=device) for length in (source, target)]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tokens[0] if model.encoder is not None else None, tokens[1])
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", [*(n for n in MULT_ADDS if n.startswith(("wmt", "cnn"))), "iwslt-de-en-160"])
def test_torch_counts_kernels_as_bands_on_top(name: str) -> None:
    """A band has a column for every frame, and for those around the sentence."""
    chosen = preset(name)
    config = chosen.config
    lengths = zip((config.encoder, config.decoder), (chosen.source_length, chosen.target_length), strict=True)
    bands = sum(
        length * (length + kernel - 1) * config.width // 2
        for stack, length in lengths
        if stack
        for kernel in stack.kernels
    )
    projection = chosen.target_length * config.target_vocab * config.width
    counted = flops(on_meta(config), chosen.source_length, chosen.target_length)
    assert profile(name).mult_adds == counted - projection - bands


@pytest.mark.parametrize("convolution", ["lightweight", "dynamic"])
@pytest.mark.parametrize("position", [0, 5, 20])
def test_a_cached_step_costs_what_torch_counts(convolution: str, position: int) -> None:
    config = tiny_config(convolution)
    model = LiteTransformer(config).eval()
    counted = profile(config, source_length=11, position=position)
    source, token = torch.full((1, 11), 5), torch.tensor([[7]])
    with FlopCounterMode(display=False) as once, torch.no_grad():
        state = model.encode(source, source != 1)
    for past in range(position):
        with torch.no_grad():
            _, state = model.decoder(token, torch.tensor([past]), state)
    with FlopCounterMode(display=False) as step, torch.no_grad():
        _, state = model.decoder(token, torch.tensor([position]), state)
    # A kernel's band over the sentence has zeros, which torch counts; that of a step has none.
    zeros = 11 * 8 * 2 * (11 - 1)
    assert counted.once == once.get_total_flops() // 2 - zeros
    assert counted.step == step.get_total_flops() // 2
    held = [t for mixer in state.mixers for t in mixer] + [t for pair in state.cross for t in pair]
    assert counted.state.at(source=11, target=position + 1) == sum(t.nbytes for t in held)


def test_an_adaptive_step_counts_every_band(golden_lm) -> None:
    model = golden_lm.model
    counted = profile(model.config, position=3)
    state = model.decoder.start(None, None)
    with torch.no_grad():
        _, state = model.decoder(torch.full((1, 3), 5), torch.tensor([0]), state)
        with FlopCounterMode(display=False) as step:
            model.decoder(torch.tensor([[7]]), torch.tensor([3]), state)
    assert counted.step == step.get_total_flops() // 2


def test_the_vocabulary_projection_dominates_a_large_vocabulary() -> None:
    counted = profile("wmt-en-fr-496")
    projection = counted.tables[1]
    assert projection.step == 44512 * 496
    assert projection.step / counted.step > 0.7
    assert counted.mult_adds == sum(row.mult_adds for row in counted.layers)


def test_bytes_and_lengths() -> None:
    counted = profile("wmt-en-fr-496")
    sizes = {precision: counted.bytes(precision) for precision in ("fp32", "fp16", "int8")}
    assert sizes == {"fp32": 157_446_272, "fp16": 78_723_136, "int8": 39_361_568}
    assert profile("cnn-dm-496").target_length == 60
    assert profile("phone", position=100).step - profile("phone", position=99).step == 2 * 2 * 128
    with pytest.raises(ValueError, match="lengths must be positive"):
        profile("phone", source_length=0)
    with pytest.raises(KeyError, match="no preset 'huge'"):
        profile("huge")
