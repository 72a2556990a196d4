"""``lite-export average``: one model of the mean weights of several, and which do not belong together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from lite_export.cli import app
from lite_export.loading import CARD, SENTENCES, TEST_SET, load_model_card, write_card
from lite_transformer.checkpoint import CONFIG, TOKENIZER, WEIGHTS, load_config, load_model, write_model
from tiny_models import lively_model, shipped_model, tiny_config

runner = CliRunner()


@pytest.fixture
def pair(tiny_folder: Path, tmp_path: Path) -> list[Path]:
    """Two models alike but for weights and dropout; the second was trained on something more."""
    first = Path(shutil.copytree(tiny_folder, tmp_path / "first"))
    (first / TEST_SET).write_text("One.\tUn.\n")
    (first / "README.md").write_text("about other weights")
    second = Path(shutil.copytree(tiny_folder, tmp_path / "second"))
    config = load_config(second).model_copy(update={"dropout": 0.3})
    write_model(second, config, dict(lively_model(config, seed=2).named_parameters()), torch.float32)
    scored = {"scores": {"tatoeba BLEU": 9.0}, "training_data": ("none", "more"), "licence": "CC-BY-2.0; MIT"}
    for folder in (first, second):
        write_card(folder, load_model_card(folder).model_copy(update=scored if folder == second else {}))
    return [first, second]


def average(models: list[Path], output: Path, *, code: int = 0) -> str:
    result = runner.invoke(app, ["average", *map(str, models), "--output", str(output)])
    assert result.exit_code == code, result.output
    return result.stderr if code else result.stdout


def test_every_weight_is_the_mean(pair: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "both"
    assert f"try: lite-export translate --model {output}" in average(pair, output)
    one, two, mean = (dict(load_model(folder).named_parameters()) for folder in (*pair, output))
    assert mean.keys() == one.keys()
    for name, tensor in mean.items():
        assert torch.equal(tensor, ((one[name] + two[name]) / 2).half().float()), name
    assert not any(torch.equal(one[name], two[name]) for name in one)


def test_the_result_is_whole(pair: list[Path], tmp_path: Path) -> None:
    average(pair, tmp_path / "both")
    assert {file.name for file in (tmp_path / "both").iterdir()} == {
        CONFIG,
        WEIGHTS,
        TOKENIZER,
        SENTENCES,
        TEST_SET,
        CARD,
    }
    card = load_model_card(tmp_path / "both")
    assert (card.model_id, card.scores, card.training_data) == ("both", {}, ("none", "more"))
    assert card.licence == "CC-BY-2.0; MIT"
    translated = runner.invoke(app, ["translate", "--model", str(tmp_path / "both"), "--max-length", "3", "Hello."])
    assert translated.exit_code == 0, translated.stderr


def test_models_go_by_name_and_need_no_card(pair: list[Path], tmp_path: Path) -> None:
    average([Path("en-fr"), Path("en-fr")], tmp_path / "same")
    same = dict(load_model(tmp_path / "same").named_parameters())
    for name, tensor in load_model(shipped_model()).named_parameters():
        torch.testing.assert_close(same[name], tensor, rtol=1e-3, atol=1e-6, msg=name)
    (pair[0] / CARD).unlink()
    average(pair, tmp_path / "plain")
    assert not (tmp_path / "plain" / CARD).exists()


def test_int8_is_half_the_bytes_and_near(tmp_path: Path) -> None:
    large, output = Path(shutil.copytree(shipped_model(), tmp_path / "large")), tmp_path / "small"
    torch.manual_seed(1)
    # What ships lies on int8's own grid: moved off it.
    moved = {n: t + 0.01 * t.abs().max() * torch.randn_like(t) for n, t in load_model(large).named_parameters()}
    write_model(large, load_config(large), moved, torch.float16)
    result = runner.invoke(app, ["average", str(large), "--precision", "int8", "--output", str(output)])
    assert result.exit_code == 0 and "in int8; try:" in result.stdout, result.output
    assert (output / WEIGHTS).stat().st_size < 0.52 * (large / WEIGHTS).stat().st_size
    whole, rounded = (dict(load_model(folder).named_parameters()) for folder in (large, output))
    for name, tensor in whole.items():
        largest = tensor.flatten(1).abs().amax(1, keepdim=True) if tensor.dim() > 1 else tensor.abs()
        assert ((tensor - rounded[name]).flatten(1 if tensor.dim() > 1 else 0).abs() <= largest / 253).all(), name
    again = tmp_path / "again"
    runner.invoke(app, ["average", str(output), "--precision", "int8", "--output", str(again)])
    assert load_model_card(again).training_data == load_model_card(output).training_data
    for name, tensor in load_model(again).named_parameters():
        torch.testing.assert_close(tensor, rounded[name], rtol=1e-6, atol=0, msg=name)


def test_one_of_them_may_be_replaced(pair: list[Path]) -> None:
    before = (pair[1] / WEIGHTS).read_bytes()
    average(pair, pair[1])
    assert (pair[1] / WEIGHTS).read_bytes() != before


def test_what_does_not_belong_together(pair: list[Path], tiny_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = pair[0]
    assert "no model at" in average([first, tmp_path / "none"], output, code=1)
    assert "is a bundle" in average([first, tiny_bundle], output, code=1)
    words = Path(shutil.copytree(first, tmp_path / "words"))
    (words / TOKENIZER).write_bytes((shipped_model() / TOKENIZER).read_bytes())
    assert "another vocabulary" in average([first, words], output, code=1)
    other = Path(shutil.copytree(first, tmp_path / "dynamic"))
    config = tiny_config("dynamic")
    write_model(other, config, dict(lively_model(config).named_parameters()), torch.float32)
    assert "decoder, encoder differ" in average([first, other], output, code=1)
    assert not output.exists()


def test_damaged_weights_leave_the_older_result(pair: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "both"
    average(pair, output)
    before = (output / WEIGHTS).read_bytes()
    whole = (pair[1] / WEIGHTS).read_bytes()
    (pair[1] / WEIGHTS).write_bytes(whole[:-7])
    assert "truncated" in average(pair, output, code=1)
    assert (output / WEIGHTS).read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["both", "first", "second"]


def test_a_missing_tensor_is_not_taken_for_zero(pair: list[Path], tmp_path: Path) -> None:
    weights = load_file(pair[1] / WEIGHTS)
    name = sorted(weights)[0]
    save_file({key: tensor for key, tensor in weights.items() if key != name}, pair[1] / WEIGHTS)
    assert f"lacks {name}" in average(pair, tmp_path / "both", code=1)
    save_file({**weights, name: weights[name][:1]}, pair[1] / WEIGHTS)
    assert "its config wants" in average(pair, tmp_path / "both", code=1)


def test_what_is_no_model_is_not_replaced(pair: list[Path], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep")
    assert "not a model folder" in average(pair, tmp_path / "mine", code=1)
    (tmp_path / "file").write_text("keep")
    assert "not a model folder" in average(pair, tmp_path / "file", code=1)
    assert (tmp_path / "mine" / "letter.txt").read_text() == (tmp_path / "file").read_text() == "keep"
