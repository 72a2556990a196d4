"""Recipes are refused before anything heavy starts, naming the field to change."""

from __future__ import annotations

from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not valid YAML"),
        ("name: x", "train: Field required"),
        ("[]", "not a valid recipe"),
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
    ],
)
def test_wrong_recipes(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate({**VALID, **changed})
