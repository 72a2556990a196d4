"""The table of precisions: what a request gives, and what it is told when it cannot be met."""

from __future__ import annotations

import pytest

from lite_export.recipes import RECIPES, RecipeError, plan


def names(*request: tuple[str, ...]) -> list[str]:
    return [f"{r.format}/{r.name}" for r in plan(*request)]


def test_defaults() -> None:
    assert names() == ["onnx/fp32"]
    assert names(("onnx", "coreml", "executorch"), ("fp32", "int8")) == [
        "onnx/fp32",
        "onnx/int8",
        "coreml/fp32-stateful",
        "coreml/int8-stateful",
        "executorch/fp32",
        "executorch/int8",
    ]


def test_caches_where_a_format_has_them() -> None:
    assert names(("onnx", "executorch"), ("fp32",), ("stateful",)) == ["onnx/fp32", "executorch/fp32-stateful"]
    assert names(("coreml",), ("fp16",), ("explicit", "stateful")) == ["coreml/fp16", "coreml/fp16-stateful"]


def test_repeated_names_count_once() -> None:
    assert names(("onnx", "onnx"), ("fp32", "fp32")) == ["onnx/fp32"]


def test_every_recipe_can_be_asked_for_and_none_is_double() -> None:
    assert len(set(RECIPES)) == len({(r.format, r.name) for r in RECIPES}) == len(RECIPES)
    for recipe in RECIPES:
        assert plan((recipe.format,), (recipe.precision,), (recipe.cache,)) == (recipe,)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ((("tflite",), ("fp32",)), "unknown format tflite; there are: onnx, executorch, coreml"),
        ((("onnx",), ("int3",)), "unknown precision int3"),
        ((("onnx", "coreml"), ("palette4",)), "onnx has no palette4, only fp32, fp16, int8, int4"),
        ((("executorch",), ("fp16",)), "executorch has no fp16, only fp32, int8, int4"),
        ((("onnx",), ("fp32",), ("magic",)), "unknown cache magic; there are: explicit, stateful"),
    ],
)
def test_what_cannot_be_had(request_: tuple[tuple[str, ...], ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        plan(*request_)
