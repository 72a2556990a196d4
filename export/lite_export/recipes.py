"""Which precisions and caches each format comes in: one table, from which a request is checked and planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Format = Literal["onnx", "coreml", "executorch"]
Cache = Literal["explicit", "stateful"]


class RecipeError(ValueError):
    """A request no format can meet; the message says what there is."""


@dataclass(frozen=True)
class Recipe:
    """One exported form of a model.

    Attributes:
        cache: explicit (an app hands the state from step to step) or stateful (the runtime keeps it).
        about: how it is made, for people.
    """

    format: Format
    precision: str
    cache: Cache
    about: str

    @property
    def name(self) -> str:
        """Also the file or folder it is written to, under the format's own."""
        return self.precision if self.cache == "explicit" else f"{self.precision}-stateful"


_ABOUT: dict[Format, dict[str, str]] = {
    "onnx": {
        "fp32": "float32 throughout",
        "fp16": "weights stored as float16, computed in float32",
        "int8": "every product MatMulNBits with 8-bit blocks of 32; one 8-bit table embeds and projects",
        "int4": "products of 4-bit blocks of 32; the table stays 8-bit",
    },
    "executorch": {
        "fp32": "XNNPACK, float32",
        "int8": "XNNPACK, 8-bit weights per channel, activations quantized as they come",
        "int4": "XNNPACK, 4-bit weights in groups of 32; the table stays 8-bit",
    },
    "coreml": {
        "fp32": "computed in float32; each state is a pair of float16, as Core ML has no wider ones",
        "fp16": "computed in float16, as the Neural Engine does",
        "int8": "8-bit weights per channel, computed in float16",
        "int4": "4-bit weights in blocks of 32, tables 8-bit, computed in float16; needs iOS 18",
        "palette4": "4-bit indices into palettes, table 8-bit, computed in float16; needs iOS 18",
    },
}
# The first is the default. Core ML needs iOS 18 for states, and iOS 16 for explicit caches.
_CACHES: dict[Format, tuple[Cache, ...]] = {
    "onnx": ("explicit",),
    "executorch": ("explicit", "stateful"),
    "coreml": ("stateful", "explicit"),
}
FORMATS: tuple[Format, ...] = tuple(_ABOUT)
RECIPES: tuple[Recipe, ...] = tuple(
    Recipe(format_name, precision, cache, about)
    for format_name, precisions in _ABOUT.items()
    for precision, about in precisions.items()
    for cache in _CACHES[format_name]
)
# Further files of the onnx format, by name.
EXTRAS = {
    "text": "translate_text.onnx: text in, text out, SentencePiece inside (onnxruntime-extensions)",
    "ort": ".ort files with required_operators.config, for a reduced mobile build of ONNX Runtime",
}
DEFAULT: tuple[Recipe, ...] = tuple(r for r in RECIPES if (r.format, r.precision) == ("onnx", "fp32"))


def plan(
    formats: Sequence[str] = ("onnx",), precisions: Sequence[str] = ("fp32",), caches: Sequence[str] = ()
) -> tuple[Recipe, ...]:
    """Every recipe a request asks for, in its order.

    Args:
        caches: none for each format's default.

    Raises:
        RecipeError: an unknown format, precision or cache, or one that a format does not have.
    """
    _check("format", formats, FORMATS)
    _check("precision", precisions, tuple(dict.fromkeys(r.precision for r in RECIPES)))
    _check("cache", caches, ("explicit", "stateful"))
    chosen: list[Recipe] = []
    for name in dict.fromkeys(formats):
        there = [r for r in RECIPES if r.format == name]
        offered = list(dict.fromkeys(r.precision for r in there))
        for precision in dict.fromkeys(precisions):
            if precision not in offered:
                raise RecipeError(
                    f"{name} has no {precision}, only {', '.join(offered)}: export it separately, or leave it out"
                )
            # A format with one kind of cache comes in that one, whatever is asked of the others.
            kinds = [c for c in dict.fromkeys(caches) if c in _CACHES[there[0].format]] or [there[0].cache]
            chosen += [r for kind in kinds for r in there if r.precision == precision and r.cache == kind]
    return tuple(chosen)


def check_extras(extras: Sequence[str]) -> None:
    """Raise RecipeError for an extra there is not."""
    _check("extra", extras, tuple(EXTRAS))


def _check(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RecipeError(f"unknown {what} {', '.join(unknown)}; there are: {', '.join(known)}")
