"""Search reproduces the hypotheses that fairseq 0.8 recorded with the original Lite Transformer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jaxtyping
import numpy as np
import pytest

from lite_export.torch_session import TorchSession
from lite_runtime.manifest import TokenIds
from lite_runtime.search import Hypothesis, SearchOptions, search
from reference_models import Golden

SETTINGS = ("greedy", "beam4_lp0.6", "beam5_lp1.0", "beam4_lp2.0_min6_max12_ng3", "beam4_unnorm")
Ids = tuple[int, ...]


@pytest.fixture(scope="module", autouse=True)
def unchecked() -> Iterator[None]:
    """Thousands of steps: other tests check the same shapes, here it would only take time."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def sources_of(golden: Golden) -> list[Ids]:
    rows = golden.tensors["src_tokens"]
    return [tuple(row[row != golden.model.config.pad].tolist()) for row in rows]


def run(golden: Golden, sources: list[Ids], kwargs: dict[str, Any]) -> list[list[Hypothesis]]:
    config = golden.model.config
    options = SearchOptions(
        beam=kwargs["beam_size"],
        nbest=kwargs["beam_size"],
        length_penalty=kwargs.get("len_penalty", 1.0),
        min_length=kwargs.get("min_len", 1),
        no_repeat_ngram=kwargs.get("no_repeat_ngram_size", 0),
        normalize=kwargs.get("normalize_scores", True),
    )
    # fairseq applies its limit to the padded source.
    limit = int(kwargs.get("max_len_a", 0) * max(map(len, sources)) + kwargs["max_len_b"])
    return search(
        TorchSession(golden.model),
        sources,
        TokenIds(pad=config.pad, eos=config.eos, unk=config.unk, start=config.eos),
        options,
        max_lengths=[limit] * len(sources),
        pad_left=True,
    )


def assert_equal(found: list[Hypothesis], recorded: list[dict[str, Any]]) -> None:
    assert [list(h.tokens) for h in found] == [h["tokens"] for h in recorded]
    np.testing.assert_allclose([h.score for h in found], [h["score"] for h in recorded], rtol=0, atol=5e-5)
    for ours, theirs in zip(found, recorded, strict=True):
        np.testing.assert_allclose(ours.token_scores, theirs["positional_scores"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_left_padded_batch_gives_the_recorded_hypotheses(golden: Golden, setting: str) -> None:
    recorded = golden.info["beams"][f"{setting}/batch"]
    found = run(golden, sources_of(golden), recorded["kwargs"])
    for ours, theirs in zip(found, recorded["hypos"], strict=True):
        assert_equal(ours, theirs)


@pytest.mark.parametrize("setting", SETTINGS)
def test_single_sentences_give_the_recorded_hypotheses(golden: Golden, setting: str) -> None:
    recorded = golden.info["beams"][f"{setting}/single"]
    for source, theirs in zip(sources_of(golden), recorded["hypos"], strict=True):
        assert_equal(run(golden, [source], recorded["kwargs"])[0], theirs)
