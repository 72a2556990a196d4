"""What must hold whatever the weights: padding changes nothing, and steps, chunks and sequences agree."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lite_transformer.convolution import ConvolutionBranch
from lite_transformer.model import LiteTransformer
from reference_models import Golden, load_golden, tiny_config
from reference_models import tiny_model as make_model

tiny_model = cache(make_model)
KINDS = [(c, n) for c in ("lightweight", "dynamic") for n in ("pre", "post")]


def sentence(length: int, vocab: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randint(4, vocab, (length - 1,), generator=generator), torch.tensor([2])])


def padded(sentences: list[Tensor], side: str, extra: int = 0) -> Tensor:
    longest = max(map(len, sentences)) + extra
    batch = torch.full((len(sentences), longest), 1)
    for row, words in zip(batch, sentences, strict=True):
        row[slice(None, len(words)) if side == "right" else slice(longest - len(words), None)] = words
    return batch


@pytest.mark.parametrize(("convolution", "norm"), KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
@settings(max_examples=5, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4), extra=st.integers(0, 5))
@torch.no_grad()
def test_padding_never_changes_a_result(convolution: str, norm: str, side: str, lengths: list[int], extra: int) -> None:
    model = tiny_model(tiny_config(convolution, norm))
    sources = [sentence(length, 40, i) for i, length in enumerate(lengths)]
    target = sentence(9, 40, 99)[None]
    together = model(padded(sources, side, extra), target.expand(len(sources), -1))
    for row, source in zip(together, sources, strict=True):
        torch.testing.assert_close(row, model(source[None], target)[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", ["", "_rightpad"])
@torch.no_grad()
def test_exact_padding_with_trained_weights(golden: Golden, side: str) -> None:
    """The original's own weights, where its padding changed logits by up to 6."""
    name = "mt_dynamic_glu" if golden.model.config.decoder.glu else "mt_lightweight"
    legacy = load_golden(name).model
    exact = LiteTransformer(legacy.config.model_copy(update={"padding": "exact"})).eval()
    exact.load_state_dict(legacy.state_dict())
    tensors = golden.tensors
    together = exact(tensors[f"src_tokens{side}"], tensors["prev_output_tokens"])
    for i in range(5):
        length = int((tensors["target"][i] != 1).sum())
        torch.testing.assert_close(together[i, :length], tensors[f"single{i}_logits"][0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_legacy_padding_leaks_as_the_original_does(golden: Golden) -> None:
    """The two modes are really different: otherwise the tests above would prove nothing."""
    tensors = golden.tensors
    together = golden.model(tensors["src_tokens"], tensors["prev_output_tokens"])
    alone = tensors["single0_logits"][0]
    assert (together[0, : len(alone)] - alone).abs().max() > 0.1


@pytest.mark.parametrize(("convolution", "norm"), KINDS)
@pytest.mark.parametrize("encoder", [True, False])
@settings(max_examples=6, deadline=None)
@given(cuts=st.sets(st.integers(1, 23), max_size=23))
@torch.no_grad()
def test_steps_chunks_and_sequences_agree(convolution: str, norm: str, encoder: bool, cuts: set[int]) -> None:
    embeddings = "shared" if encoder else "tied"
    model = tiny_model(tiny_config(convolution, norm, embeddings=embeddings, encoder=encoder))
    target = torch.stack([sentence(24, 40, 1), sentence(24, 40, 2)])
    source = padded([sentence(7, 40, 3), sentence(4, 40, 4)], "right") if encoder else None
    whole = model(source, target)
    state = model.decoder.start(None, None) if source is None else model.encode(source, source != 1)
    for first, last in pairwise([0, *sorted(cuts), 24]):
        logits, state = model.decoder(target[:, first:last], torch.tensor([first]), state)
        torch.testing.assert_close(logits, whole[:, first:last], atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_future_is_never_seen() -> None:
    model = tiny_model(tiny_config("dynamic"))
    source, target = sentence(6, 40, 0)[None], sentence(12, 40, 1)[None]
    changed = target.clone()
    changed[0, 8:] = 5
    before, after = model(source, target), model(source, changed)
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.equal(before[:, 8:], after[:, 8:])


def test_dropout_acts_in_training_only() -> None:
    config = tiny_config("dynamic").model_copy(update={"dropout": 0.3, "attention_dropout": 0.3, "weight_dropout": 0.3})
    model = tiny_model(config)
    source, target = sentence(6, 40, 0)[None], sentence(8, 40, 1)[None]
    assert torch.equal(model(source, target), model(source, target))
    model.train()
    assert not torch.equal(model(source, target), model(source, target))
    model.eval()


def test_a_model_without_an_encoder_says_so() -> None:
    model = tiny_model(tiny_config(embeddings="tied", encoder=False))
    with pytest.raises(ValueError, match="no encoder"):
        model.encode(torch.tensor([[5, 2]]), torch.tensor([[True, True]]))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("time", [1, 4, 40])
@torch.no_grad()
def test_a_dynamic_kernel_weighs_the_neighbours_of_its_frame(time: int, causal: bool) -> None:
    """By its definition, a frame and a tap at a time; sentences shorter than the kernel of 7 and longer."""
    torch.manual_seed(time)
    branch = ConvolutionBranch(8, 7, 2, "dynamic", glu=False, causal=causal)
    x = torch.randn(3, time, 8)
    frames = branch.input(x)
    assert branch.predict is not None
    taps = branch.predict(frames).view(3, time, 2, 7).softmax(-1).repeat_interleave(4, dim=2)
    expected = torch.zeros(3, time, 8)
    for frame in range(time):
        for tap in range(7):
            neighbour = frame + tap - (6 if causal else 3)
            if 0 <= neighbour < time:
                expected[:, frame] += taps[:, frame, :, tap] * frames[:, neighbour]
    torch.testing.assert_close(branch(x)[0], branch.output(expected))
