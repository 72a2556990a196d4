"""Our model against what the original system computed, in its own (legacy) padding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lite_transformer.convolution import ConvolutionBranch
from lite_transformer.layers import MixerState
from lite_transformer.model import DecoderState
from reference_models import GOLDEN, Golden

# Rounding of fp32: against float64 the original is off by 2.3e-5, we by up to 4.1e-5, by the processor's kernels.
ATOL = 1e-4


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=0)


@contextmanager
def outputs_of(modules: dict[str, nn.Module]) -> Iterator[dict[str, Any]]:
    """Record each module's first output, time first as the original has it."""
    seen: dict[str, Any] = {}

    def record(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            seen[name] = first.transpose(0, 1)

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in modules.items()]
    yield seen
    for handle in handles:
        handle.remove()


def layers(golden: Golden) -> dict[str, nn.Module]:
    named: dict[str, nn.Module] = {}
    for side, stack in (("enc", golden.model.encoder), ("dec", golden.model.decoder)):
        assert stack is not None
        for i, layer in enumerate(stack.layers):
            named[f"{side}_layer{i}_out"] = layer
        named[f"{side}_layer0_branch0_out"] = stack.layers[0].mixer.attention
        named[f"{side}_layer0_branch1_out"] = stack.layers[0].mixer.convolution
    return named


def start(golden: Golden, source: Tensor) -> DecoderState:
    return golden.model.encode(source, source != golden.model.config.pad)


def position(step: int) -> Tensor:
    return torch.tensor([step])


@torch.no_grad()
def test_every_layer_and_branch(golden: Golden) -> None:
    named = layers(golden)
    source, target = golden.tensors["src_tokens"], golden.tensors["prev_output_tokens"]
    with outputs_of(named) as seen:
        golden.model(source, target)
    # The original computes padded frames too; what it makes of padded target positions is nobody's input.
    real_source = (source != 1).T
    real_target = (golden.tensors["target"] != 1).T
    assert set(seen) == set(named)
    assert len(seen) == 16
    for name, ours in seen.items():
        real = real_source if name.startswith("enc") else real_target
        close(ours[real], golden.tensors[name][real])


@torch.no_grad()
def test_encoder_and_teacher_forced_logits(golden: Golden) -> None:
    tensors = golden.tensors
    source = tensors["src_tokens"]
    keep = source != 1
    assert golden.model.encoder is not None
    close(golden.model.encoder(source, keep).transpose(0, 1)[keep.T], tensors["encoder_out"][keep.T])
    real = tensors["target"] != 1
    logits = golden.model(source, tensors["prev_output_tokens"])
    close(logits[real], tensors["logits_teacher"][real])
    nll = -logits.log_softmax(-1).gather(2, tensors["target"][..., None])[..., 0][real].sum()
    torch.testing.assert_close(nll, tensors["nll_sum"][0], atol=1e-3, rtol=1e-5)


@torch.no_grad()
def test_right_padding(golden: Golden) -> None:
    tensors = golden.tensors
    source = tensors["src_tokens_rightpad"]
    keep = source != 1
    assert golden.model.encoder is not None
    close(golden.model.encoder(source, keep).transpose(0, 1)[keep.T], tensors["encoder_out_rightpad"][keep.T])
    real = tensors["target"] != 1
    close(golden.model(source, tensors["prev_output_tokens"])[real], tensors["logits_rightpad"][real])


@pytest.mark.parametrize("index", range(5))
@torch.no_grad()
def test_single_sentences(golden: Golden, index: int) -> None:
    tensors = golden.tensors
    source = tensors["src_tokens"][index : index + 1]
    source = source[:, source[0] != 1]
    length = int((tensors["target"][index] != 1).sum())
    assert golden.model.encoder is not None
    close(golden.model.encoder(source, source != 1).transpose(0, 1), tensors[f"single{index}_encoder_out"])
    close(
        golden.model(source, tensors["prev_output_tokens"][index : index + 1, :length]),
        tensors[f"single{index}_logits"],
    )


@torch.no_grad()
def test_incremental_logits_and_states(golden: Golden) -> None:
    tensors = golden.tensors
    state = start(golden, tensors["src_tokens"])
    tokens = tensors["prev_output_tokens"]
    for step in range(tokens.shape[1]):
        logits, state = golden.model.decoder(tokens[:, step : step + 1], position(step), state)
        close(logits[:, 0], tensors["logits_incremental"][:, step])
        if step in (0, 4, 21):
            for layer in (0, 3):
                check_state(tensors, f"state_t{step}_l{layer}", state.mixers[layer], step)
        if step == 0:
            check_cross(tensors, state)


def check_state(tensors: dict[str, Tensor], prefix: str, mixer: MixerState | None, step: int) -> None:
    assert mixer is not None
    close(mixer.keys, tensors[f"{prefix}_self_k"])
    close(mixer.values, tensors[f"{prefix}_self_v"])
    assert mixer.window is not None
    theirs = tensors[f"{prefix}_conv"][0].transpose(1, 2)
    filled = theirs.shape[1]
    assert filled == min(step + 1, mixer.window.shape[1])
    close(mixer.window[:, -filled:], theirs)
    # The original grows its buffer; ours is of one size, zero where nothing came yet.
    assert not mixer.window[:, :-filled].any()


def check_cross(tensors: dict[str, Tensor], state: DecoderState) -> None:
    real = (tensors["src_tokens"] != 1)[:, None, :, None]
    for layer in (0, 3):
        cross = state.cross[layer]
        assert cross is not None
        for ours, kind in zip(cross, ("k", "v"), strict=True):
            close(ours * real, tensors[f"state_t0_l{layer}_cross_{kind}"] * real)


@torch.no_grad()
def test_language_model(golden_lm: Golden) -> None:
    model, tensors = golden_lm.model, golden_lm.tensors
    # The original's language model logs each layer's input, then the last output.
    with outputs_of({f"inner{i + 1}": layer for i, layer in enumerate(model.decoder.layers)}) as seen:
        log_probs = model(None, tensors["tokens"])
    assert len(seen) == 4
    for name, ours in seen.items():
        close(ours, tensors[name])
    close(log_probs, tensors["log_probs"])
    state = model.decoder.start(None, None)
    for step in range(tensors["tokens"].shape[1]):
        ours, state = model.decoder(tensors["tokens"][:, step : step + 1], position(step), state)
        close(ours[:, 0], tensors["log_probs_incremental"][:, step])


CONVOLUTIONS = [
    f"{kind}_{side}_k{kernel}"
    for kind in ("lightweight", "dynamic", "dynamic_glu")
    for side in ("same", "causal")
    for kernel in (3, 7, 31)
]


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("frames", [1, 5, 40])
@torch.no_grad()
def test_convolution_modules(case: str, frames: int) -> None:
    tensors = load_file(GOLDEN / "conv_modules.safetensors")
    kind, side, kernel = case.replace("dynamic_glu", "glu").split("_")
    branch = ConvolutionBranch(
        width=12,
        kernel=int(kernel[1:]),
        heads=4,
        kind="lightweight" if kind == "lightweight" else "dynamic",
        glu=kind == "glu",
        causal=side == "causal",
    )
    for ours, theirs in (("input", "linear1"), ("output", "linear2"), ("predict", "weight_linear")):
        for part in ("weight", "bias"):
            if (name := f"{case}/param.{theirs}.{part}") in tensors:
                branch.get_parameter(f"{ours}.{part}").copy_(tensors[name])
    if branch.taps is not None:
        branch.taps.copy_(tensors[f"{case}/param.weight"].squeeze(1))
    out, window = branch(tensors[f"{case}/x_T{frames}"].transpose(0, 1))
    close(out.transpose(0, 1), tensors[f"{case}/y_T{frames}"])
    assert (window is not None) == (side == "causal")
    if window is not None and (name := f"{case}/buf_T{frames}") in tensors:
        theirs = tensors[name][0].transpose(1, 2)
        close(window[:, window.shape[1] - theirs.shape[1] :], theirs)
