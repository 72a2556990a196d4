"""ONNX Runtime and PyTorch find the same hypotheses through the same search."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from lite_export.torch_session import TorchSession
from lite_runtime.bundle import Bundle, BundleError, open_bundle
from lite_runtime.onnx_session import OnnxSession
from lite_runtime.search import SearchOptions, search
from lite_transformer.checkpoint import load_model


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> OnnxSession:
    return OnnxSession(bundle.folder, bundle.format("onnx"), threads=1)


@pytest.mark.parametrize("beam", [1, 5])
def test_search_finds_what_it_finds_in_pytorch(
    session: OnnxSession, bundle: Bundle, tiny_folder: Path, beam: int
) -> None:
    reference = TorchSession(load_model(tiny_folder))
    sources = [(7, 30, 2), (2,), (5, 9, 40, 41, 77, 100, 8, 2), (159, 2)]
    options = SearchOptions(beam=beam, nbest=beam, max_length=20)
    ours, theirs = (search(s, sources, bundle.manifest.tokens, options) for s in (session, reference))
    for found, expected in zip(ours, theirs, strict=True):
        assert [h.tokens for h in found] == [h.tokens for h in expected]
        np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], atol=1e-4)


def test_the_state_has_every_tensor_in_manifest_order(session: OnnxSession, bundle: Bundle) -> None:
    specs = bundle.format().state
    source = np.array([[5, 6, 2], [7, 2, 1]])
    state = session.encode(source, source != 1)
    assert list(session.canonical(state)) == [spec.name for spec in specs]
    _, after = session.step(np.array([2, 2]), 0, state)
    for spec in specs:
        wanted = tuple({"batch": 2, "source": 3}.get(str(size), size) for size in spec.shape)
        assert state[spec.name].shape == wanted
        grown = spec.kind == "self_kv"
        assert after[spec.name].shape[2:3] == ((1,) if grown else wanted[2:3])
        assert (after[spec.name] is state[spec.name]) == (spec.output is None)


def test_reorder_moves_rows(session: OnnxSession) -> None:
    source = np.array([[5, 6, 2], [7, 2, 1]])
    state = session.encode(source, source != 1)
    moved = session.reorder(state, np.array([1, 1, 0]))
    for name, tensor in state.items():
        np.testing.assert_array_equal(moved[name], tensor[[1, 1, 0]])


def test_rows_that_move_within_their_sentences_share_what_the_encoder_gave(session: OnnxSession) -> None:
    source = np.array([[5, 6, 2], [7, 2, 1]])
    beams = session.reorder(session.encode(source, source != 1), np.array([0, 0, 1, 1]))
    _, beams = session.step(np.array([2, 3, 4, 5]), 0, beams)
    within = session.reorder(beams, np.array([1, 1, 3, 2]))
    across = session.reorder(within, np.array([0, 2, 2, 3]))
    for spec in session.specs:
        fixed = spec.output is None
        assert (within[spec.name] is beams[spec.name]) == fixed
        np.testing.assert_array_equal(within[spec.name], beams[spec.name][[0, 1, 2, 3] if fixed else [1, 1, 3, 2]])
        np.testing.assert_array_equal(across[spec.name], within[spec.name][[0, 2, 2, 3]])


@pytest.mark.parametrize("content", [b"", b"not a graph", None])
def test_a_graph_that_cannot_be_loaded_is_named(bundle: Bundle, tmp_path: Path, content: bytes | None) -> None:
    copy = shutil.copytree(bundle.folder, tmp_path / "bundle")
    step = copy / bundle.format().step.file
    step.write_bytes(content) if content is not None else step.unlink()
    with pytest.raises(BundleError, match=r"ONNX Runtime cannot load step\.onnx"):
        OnnxSession(copy, bundle.format())
