"""The authors' checkpoints become model folders that compute what the original computed."""

from __future__ import annotations

import argparse
import json
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lite_transformer.checkpoint import CheckpointError, load_model
from lite_transformer.fairseq import UnsupportedCheckpoint
from lite_transformer.import_fairseq import import_checkpoint, read_dictionary
from reference_models import GOLDEN, Golden, load_golden

FAIRSEQ = GOLDEN / "mt_lightweight.fairseq_style.pt"


def words(count: int, prefix: str) -> str:
    return "".join(f"{prefix}{i} {1000 - i}\n" for i in range(count))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint with its dictionaries and codes beside it, as the authors' archives have them."""
    folder = tmp_path / "released"
    folder.mkdir()
    (folder / "checkpoint.pt").write_bytes(FAIRSEQ.read_bytes())
    # 52 + 4 specials fill the source embedding's 56 rows; 58 + 4 need two padding words to make 64.
    (folder / "dict.de.txt").write_text(words(52, "de"))
    (folder / "dict.en.txt").write_text(words(58, "en"))
    (folder / "code").write_text("#version: 0.2\na b\n")
    return folder


@torch.no_grad()
def test_the_imported_model_is_the_original(tmp_path: Path) -> None:
    report = import_checkpoint(FAIRSEQ, tmp_path / "out")
    assert "fairseq" not in sys.modules
    model = load_model(tmp_path / "out")
    tensors = load_file(GOLDEN / "mt_lightweight.tensors.safetensors")
    real = tensors["target"] != 1
    logits = model(tensors["src_tokens"], tensors["prev_output_tokens"])
    torch.testing.assert_close(logits[real], tensors["logits_teacher"][real], atol=1e-4, rtol=0)
    assert report.config == model.config == load_golden("mt_lightweight").model.config
    assert (report.source_language, report.target_language) == ("de", "en")
    assert report.parameters == sum(p.numel() for p in model.parameters())
    stored = load_file(tmp_path / "out/model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.float32}
    assert not report.vocabulary
    assert not report.codes
    assert "dict.de.txt" in report.notes[0]
    assert "no BPE codes" in report.notes[1]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]


def test_vocabulary_and_codes_are_converted(folder: Path, tmp_path: Path) -> None:
    report = import_checkpoint(folder / "checkpoint.pt", tmp_path / "out")
    assert report.vocabulary
    assert report.codes
    assert report.notes == ()
    vocabulary = json.loads((tmp_path / "out/vocabulary.json").read_text())
    assert vocabulary["kind"] == "fairseq-bpe"
    assert (vocabulary["source_language"], vocabulary["target_language"]) == ("de", "en")
    assert vocabulary["source"][:5] == ["<s>", "<pad>", "</s>", "<unk>", "de0"]
    assert len(vocabulary["source"]) == 56
    assert vocabulary["target"][-3:] == ["en57", "madeupword0000", "madeupword0001"]
    assert (tmp_path / "out/bpe.codes").read_text() == "#version: 0.2\na b\n"


def test_dictionaries_may_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    assert import_checkpoint(FAIRSEQ, tmp_path / "out", data=folder).vocabulary
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty has no dictionary for this model: no .*dict\.de\.txt"):
        import_checkpoint(FAIRSEQ, tmp_path / "other", data=tmp_path / "empty")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (words(40, "de"), "makes 44 tokens, the embedding has 56: it belongs to another model"),
        (words(53, "de"), "makes 57 tokens, the embedding has 56"),
        ("de0 12\nde1\n", r"dict\.de\.txt:2: expected TOKEN COUNT, found 'de1'"),
        ("\udcff".join("ab"), "cannot read the dictionary"),
    ],
)
def test_a_dictionary_that_does_not_fit(folder: Path, tmp_path: Path, content: str, message: str) -> None:
    (folder / "dict.de.txt").write_bytes(content.encode("utf8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(folder / "checkpoint.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_dictionary_lines_keep_their_order_and_spaces(tmp_path: Path) -> None:
    path = tmp_path / "dict.txt"
    path.write_text("the 10\na\u00a0b 3\n@@ 2\n1 1\n")
    assert read_dictionary(path, 8)[4:] == ("the", "a\u00a0b", "@@", "1")


def checkpoint(golden: Golden, state: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    arguments = {**golden.info["config"], **changed}
    return {"args": argparse.Namespace(**arguments), "model": OrderedDict(state or {})}


@pytest.mark.parametrize("old_layout", [True, False])
@torch.no_grad()
def test_kernels_saved_on_a_gpu_and_old_files(tmp_path: Path, old_layout: bool) -> None:
    """The GPU module of the original stores kernels as (H, K), the CPU one as (H, 1, K)."""
    weights = load_file(GOLDEN / "mt_lightweight.state_dict.safetensors")
    flat = {n: w.squeeze(1) if n.endswith("branches.1.weight") else w for n, w in weights.items()}
    assert sum(flat[n].dim() != weights[n].dim() for n in weights) == 12
    golden = load_golden("mt_lightweight")
    torch.save(checkpoint(golden, flat), tmp_path / "gpu.pt", _use_new_zipfile_serialization=not old_layout)
    import_checkpoint(tmp_path / "gpu.pt", tmp_path / "out")
    for ours, theirs in zip(load_model(tmp_path / "out").parameters(), golden.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@torch.no_grad()
def test_half_precision_shared_embeddings_and_a_language_model(tmp_path: Path) -> None:
    for name in ("mt_dynamic_glu", "lm_dynamic_adaptive"):
        golden = load_golden(name)
        weights = load_file(GOLDEN / f"{name}.state_dict.safetensors")
        torch.save(checkpoint(golden, {n: w.half() for n, w in weights.items()}), tmp_path / "m.pt")
        report = import_checkpoint(tmp_path / "m.pt", tmp_path / name)
        assert report.config == golden.model.config
        for ours, theirs in zip(load_model(tmp_path / name).parameters(), golden.model.parameters(), strict=True):
            assert torch.equal(ours, theirs.half().float())


def test_a_language_models_dictionary(tmp_path: Path) -> None:
    golden = load_golden("lm_dynamic_adaptive")
    torch.save(checkpoint(golden, load_file(GOLDEN / "lm_dynamic_adaptive.state_dict.safetensors")), tmp_path / "m.pt")
    (tmp_path / "dict.txt").write_text(words(116, "w"))
    assert import_checkpoint(tmp_path / "m.pt", tmp_path / "out").vocabulary
    vocabulary = json.loads((tmp_path / "out/vocabulary.json").read_text())
    assert vocabulary["source"] == []
    assert len(vocabulary["target"]) == 120


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder_learned_pos": True}, "encoder_learned_pos=True is not supported"),
        ({"activation_fn": "gelu"}, "activation_fn='gelu' is not supported"),
        ({"encoder_branch_type": ["attn:1:40:4"]}, "expected one attn, then one convolution branch"),
        ({"encoder_branch_type": None}, r"query.weight has shape \(20, 20\), its config wants \(40, 40\)"),
        ({"encoder_branch_type": ["attn:1", "lightweight:x"]}, "unexpected form"),
        ({"decoder_kernel_size_list": [3, 7]}, "has 2 entries for 6 layers"),
        ({"encoder_embed_dim": 48}, "encoder_embed_dim differs"),
        ({"decoder_attention_heads": 7}, "does not divide"),
        ({"encoder_kernel_size_list": [3, 7, 15, 31, 31, 33]}, r"taps has shape \(4, 31\), its config wants \(4, 33\)"),
        ({"dropout": "lots"}, "unexpected form"),
    ],
)
def test_models_of_another_kind(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    weights = load_file(GOLDEN / "mt_lightweight.state_dict.safetensors")
    torch.save(checkpoint(load_golden("mt_lightweight"), weights, **changed), tmp_path / "m.pt")
    with pytest.raises((UnsupportedCheckpoint, CheckpointError), match=message):
        import_checkpoint(tmp_path / "m.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "no 'model' dictionary"),
        ({"model": {"a": torch.ones(1)}, "args": None}, "only fairseq before 0.10"),
        ({"model": {"a": 1}, "args": argparse.Namespace()}, "more than named tensors"),
        ({"model": {"a": torch.ones(1)}, "args": argparse.Namespace()}, "no fairseq model with a decoder"),
        (
            {
                "model": {"decoder.embed_tokens.weight": torch.ones(8, 4)},
                "args": argparse.Namespace(decoder_embed_dim=4),
            },
            "lacks the argument or weight 'decoder_layers'",
        ),
    ],
)
def test_files_that_are_no_fairseq_checkpoint(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(UnsupportedCheckpoint, match=message):
        import_checkpoint(tmp_path / "m.pt", tmp_path / "out")


def test_only_a_model_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    with pytest.raises(CheckpointError, match="is not a model folder"):
        import_checkpoint(FAIRSEQ, tmp_path / "home")
    assert (tmp_path / "home/letter.txt").read_text() == "dear"
    import_checkpoint(FAIRSEQ, tmp_path / "out")
    import_checkpoint(FAIRSEQ, tmp_path / "out")
    assert load_model(tmp_path / "out").config.width == 40
