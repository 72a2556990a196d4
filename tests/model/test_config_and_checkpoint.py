"""Configs refuse nonsense; a folder read back is the same model; a damaged folder says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from lite_transformer.checkpoint import CheckpointError, load_config, load_model, unique_weights, write_model
from lite_transformer.config import ModelConfig
from lite_transformer.files import recover, staged_file, staged_folder
from lite_transformer.int8_weights import from_int8, to_int8
from lite_transformer.model import LiteTransformer
from lite_transformer.presets import PRESETS, preset
from reference_models import tiny_config, tiny_model


def changed(path: str, value: Any) -> dict[str, Any]:
    """The tiny config as JSON with one value changed."""
    content = tiny_config().model_dump(mode="json")
    *parents, last = path.split(".")
    inner = content
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("width", 17, "must be even"),
        ("width", 0, "greater than 0"),
        ("width", "wide", "valid integer"),
        ("source_vocab", 41, "must equal target_vocab"),
        ("encoder.kernels", [3, 4], "must be odd"),
        ("encoder.kernels", [], "give kernels, one a layer, or the depth"),
        ("encoder.attention_heads", 3, "attention_heads 3 does not divide 8"),
        ("decoder.convolution_heads", 3, "convolution_heads 3 does not divide 8"),
        ("decoder.cross_heads", 3, "cross_heads 3 does not divide 16"),
        ("decoder.cross_heads", 0, "has cross_heads if, and only if"),
        ("decoder.attention_width", 18, "exceeds width 16"),
        ("decoder.convolution", "depthwise", "'lightweight' or 'dynamic'"),
        ("encoder", None, "has cross_heads if, and only if"),
        ("dropout", 1.0, "less than 1"),
        ("padding", "none", "'exact' or 'legacy'"),
        ("colour", "red", "Extra inputs are not permitted"),
        ("adaptive", {"cutoffs": [10]}, "encoder must be null"),
    ],
)
def test_a_wrong_config_is_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelConfig.model_validate(changed(path, value))


@pytest.mark.parametrize("cutoffs", [[0, 10], [10, 10], [20, 10], [10, 40]])
def test_adaptive_bands_must_split_the_vocabulary(cutoffs: list[int]) -> None:
    content = {**tiny_config(embeddings="tied", encoder=False).model_dump(), "adaptive": {"cutoffs": cutoffs}}
    with pytest.raises(ValidationError, match="must rise within target_vocab 40"):
        ModelConfig.model_validate(content)


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        tiny_config().width = 32


def test_presets_by_name() -> None:
    assert preset("phone").config.width % 64 == 0
    with pytest.raises(KeyError, match="there are: phone, phone-half, wmt-en-fr-200"):
        preset("large")
    for name, chosen in PRESETS.items():
        round_trip = ModelConfig.model_validate_json(chosen.config.model_dump_json())
        assert round_trip == chosen.config, name


def saved(folder: Path, model: LiteTransformer, dtype: torch.dtype = torch.float32) -> Path:
    with staged_folder(folder) as staging:
        write_model(staging, model.config, unique_weights(model), dtype)
    return folder


@pytest.mark.parametrize("embeddings", ["shared", "tied", "untied"])
def test_save_and_load_keeps_results_and_tying(tmp_path: Path, embeddings: str) -> None:
    model = tiny_model(tiny_config(embeddings=embeddings))
    loaded = load_model(saved(tmp_path / "m", model))
    assert not loaded.training
    source, target = torch.tensor([[5, 9, 2]]), torch.tensor([[2, 7, 8]])
    assert torch.equal(model(source, target), loaded(source, target))
    assert loaded.encoder is not None
    tables = [loaded.encoder.embedding.weight, loaded.decoder.embedding.weight, loaded.decoder.projection.weight]
    assert len({id(t) for t in tables}) == {"shared": 1, "tied": 2, "untied": 3}[embeddings]
    stored = load_file(tmp_path / "m/model.safetensors")
    assert sum(t.numel() for t in stored.values()) == sum(p.numel() for p in model.parameters())


def test_half_precision_loads_as_float32(tmp_path: Path) -> None:
    model = tiny_model(tiny_config())
    loaded = load_model(saved(tmp_path / "m", model, torch.float16))
    for ours, theirs in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs.half().float())


def test_int8_keeps_zeros_and_what_is_not_finite() -> None:
    """A diverged model must stay visibly so, and an empty row of a table empty."""
    weights = {"table": torch.tensor([[0.0, 0.0], [1.0, -0.5], [float("nan"), 1.0]]), "bias": torch.ones(2)}
    again = from_int8(to_int8(weights))
    assert torch.equal(again["table"][0], torch.zeros(2))
    torch.testing.assert_close(again["table"][1], weights["table"][1], rtol=0, atol=0.5 / 127)
    assert again["table"][2].isnan().any()
    assert again["bias"].dtype == torch.float16


@pytest.mark.parametrize("spoil", [lambda s: None, lambda s: s[:1]], ids=["missing", "misshapen"])
def test_int8_needs_its_scales(tmp_path: Path, spoil: Any) -> None:
    model = tiny_model(tiny_config())
    folder = saved(tmp_path / "m", model, torch.int8)
    name = "decoder.layers.0.ffn.expand.weight"

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        if (scale := spoil(tensors.pop(f"{name}_scale"))) is not None:
            tensors[f"{name}_scale"] = scale

    rewrite(folder, edit)
    with pytest.raises(CheckpointError, match=rf"model.safetensors: {name} is int8 without a scale for each"):
        load_model(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path / "m", tiny_model(tiny_config()))


def test_missing_files(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights at"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.json"):
        load_model(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 5000])
def test_truncated_weights(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated or no safetensors file"):
        load_model(folder)


def rewrite(folder: Path, edit: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_tensors_must_be_exactly_the_configs(folder: Path) -> None:
    name = "decoder.layers.0.ffn.expand.bias"
    rewrite(folder, lambda tensors: tensors.update({name: torch.zeros(3)}))
    with pytest.raises(CheckpointError, match=rf"{name} has shape \(3,\), its config wants \(16,\)"):
        load_model(folder)
    rewrite(folder, lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match=f"lacks {name}"):
        load_model(folder)
    rewrite(folder, lambda tensors: tensors.update({name: torch.zeros(16), "stray": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="does not know: stray"):
        load_model(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not a model config"),
        (b"\xff\xfe\x00", "cannot read"),
        (b"[]", "not a model config"),
        (json.dumps({**changed("width", 16), "colour": 1}).encode(), "colour: Extra inputs"),
        (json.dumps(changed("decoder.ffn_width", -1)).encode(), "decoder.ffn_width: Input should be greater"),
    ],
)
def test_a_damaged_config_names_file_and_field(folder: Path, content: bytes, message: str) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_config(folder)


def test_staging_leaves_the_old_folder_when_the_block_fails(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with staged_folder(target) as staging:
        (staging / "a").write_text("old")

    def fail() -> None:
        with staged_folder(target) as staging:
            (staging / "a").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (target / "a").read_text() == "old"
    with staged_folder(target) as staging:
        (staging / "b").write_text("new")
    assert [p.name for p in target.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_ctrl_c_while_the_staging_folder_is_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Path.mkdir

    def make_and_interrupt(path: Path, **options: Any) -> None:
        make(path, **options)
        if path.name.endswith(".partial"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", make_and_interrupt)
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_staged_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with staged_file(target) as staging:
        staging.write_text("old")
        assert not target.exists()

    def fail() -> None:
        with staged_file(target) as staging:
            staging.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_staging_refuses_a_file_and_keeps_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file"), staged_folder(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with staged_folder(tmp_path / "link") as staging:
        (staging / "a").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/a").read_text() == "new"


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    target = tmp_path / "state"
    with staged_folder(target) as staging:
        (staging / "a").write_text("old")
    # What such a kill leaves: the old folder set aside, the new one not yet in place.
    target.rename(tmp_path / ".state.old")
    recover(target)
    assert (target / "a").read_text() == "old"
    recover(target)
    assert (target / "a").read_text() == "old"
