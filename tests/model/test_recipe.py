"""Recipes are refused before anything heavy starts, naming the field to change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lite_transformer.training.corpus import read_corpus
from lite_transformer.training.recipe import Recipe, RecipeError, load_recipe

ROOT = Path(__file__).parents[2]
VALID = {
    "name": "tiny",
    "source_language": "en",
    "target_language": "fr",
    "train": [{"name": "a", "path": "a.tsv"}],
    "validation": {"name": "dev", "path": "dev.tsv"},
    "schedule": {"steps": 10},
}


def test_every_recipe_of_the_project_is_valid() -> None:
    paths = list((ROOT / "configs").glob("*.yaml"))
    assert paths
    for path in paths:
        assert load_recipe(path).name


@pytest.mark.parametrize("pair", ["en-fr", "fr-en"])
def test_a_phrase_has_one_translation(pair: str) -> None:
    """Two would tie, as both are repeated as often."""
    recipe = load_recipe(ROOT / "configs" / f"phone-{pair}-phrases.yaml")
    (phrases,) = [corpus for corpus in recipe.train if corpus.name == "phrases"]
    pairs = list(read_corpus(ROOT / "configs", phrases))
    assert len({source for source, _ in pairs}) == len(pairs) > 600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not valid YAML"),
        ("name: x", "train: Field required"),
        ("[]", "not a valid recipe"),
        ("name: 2024-02-30", "not valid YAML"),
        ("[" * 3000, "not valid YAML"),
        ("source_language: no", "source_language: .*put it in quotes"),
    ],
)
def test_damaged_recipes(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(content)
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "r.yaml")
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train": []}, "at least 1 item"),
        ({"train": [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}]}, "corpus names must differ"),
        ({"train": [{"name": "validation", "path": "x"}]}, "none 'validation'"),
        ({"train": [{"name": "../a", "path": "x"}]}, "without '/'"),
        ({"colour": 1}, "Extra inputs"),
        ({"schedule": {"steps": 0}}, "greater than 0"),
        ({"dropout": 1.0}, "less than 1"),
        ({"label_smoothing": 2}, "less than 1"),
        ({"seed": 20240101}, "less than 16777216"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"clip_norm": 0}, "greater than 0"),
        ({"batch_tokens": 0}, "greater than 0"),
        ({"validate_every": 0}, "greater than 0"),
        ({"average_every": 0}, "greater than 0"),
        ({"bleu_sentences": 0}, "greater than 0"),
        ({"bleu_every": 300}, "bleu_every must be a multiple of validate_every, 500"),
        ({"schedule": {"steps": 1, "warmup": -3}}, "greater than or equal to 0"),
        ({"cleaning": {"max_tokens": 0}}, "greater than 0"),
        ({"cleaning": {"unknown_rate": 5}}, "less than or equal to 1"),
        ({"tokenizer": {"sentences": 0}}, "greater than 0"),
    ],
)
def test_wrong_recipes(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate({**VALID, **changed})


def test_no_needs_no_quotes(tmp_path: Path) -> None:
    """As YAML reads it, it is false."""
    (tmp_path / "r.json").write_text(json.dumps({**VALID, "precision": False}))
    assert load_recipe(tmp_path / "r.json").precision == "no"
