"""What Core ML packages may be compressed to, and which of their weights are.

Compressed are the matrices of linear layers and the token tables: nearly all bytes. Kernels of convolutions, the
table of positions, biases and normalisations are left as they are: small, and errors in them reach every token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lite_runtime.quiet_coremltools import coremltools, quiet

Precision = Literal["fp32", "fp16", "int8", "int4", "palette4"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int4", "palette4")
# Weights that share a scale, along the input of a matrix.
BLOCK = 32
# Rows of a matrix that share a palette of 16 values.
PALETTE_ROWS = 16
_POSITIONS = "positions_table"


@dataclass(frozen=True)
class Recipe:
    """How one precision is made.

    Attributes:
        compute: what activations are, as coremltools names it.
        since: the first iOS that knows its weights.
    """

    compute: Literal["FLOAT32", "FLOAT16"]
    since: Literal["iOS16", "iOS18"]


RECIPES: dict[Precision, Recipe] = {
    "fp32": Recipe("FLOAT32", "iOS16"),
    "fp16": Recipe("FLOAT16", "iOS16"),
    "int8": Recipe("FLOAT16", "iOS16"),
    "int4": Recipe("FLOAT16", "iOS18"),
    "palette4": Recipe("FLOAT16", "iOS18"),
}


def compress(model: Any, precision: Precision) -> Any:
    """An ``MLModel`` of one function with its weights compressed; itself where nothing is to be."""
    if precision not in _COMPRESSORS:
        return model
    with quiet():
        return _COMPRESSORS[precision](model, compressible(model))


def compressible(model: Any) -> list[str]:
    """Names of the weights that linear layers multiply by and tokens are looked up in."""
    optimize = coremltools("optimize.coreml")
    with quiet():
        weights = optimize.get_weights_metadata(model, weight_threshold=0)
    return [
        name
        for name, weight in weights.items()
        if weight.val.ndim == 2
        and _POSITIONS not in name
        and all(user.op_type in ("linear", "gather") for user in weight.child_ops)
    ]


def _int8(model: Any, names: list[str]) -> Any:
    return _linear(model, names, dtype="int8", granularity="per_channel")


def _int4(model: Any, names: list[str]) -> Any:
    return _linear(model, names, dtype="int4", granularity="per_block", block_size=BLOCK)


def _linear(model: Any, names: list[str], **options: Any) -> Any:
    optimize = coremltools("optimize.coreml")
    config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0, **options)
    return optimize.linear_quantize_weights(model, _only(optimize, names, config))


def _palette4(model: Any, names: list[str]) -> Any:
    optimize = coremltools("optimize.coreml")
    config = optimize.OpPalettizerConfig(
        mode="kmeans", nbits=4, granularity="per_grouped_channel", group_size=PALETTE_ROWS, weight_threshold=0
    )
    return optimize.palettize_weights(model, _only(optimize, names, config))


def _only(optimize: Any, names: list[str], config: Any) -> Any:
    return optimize.OptimizationConfig(global_config=None, op_name_configs=dict.fromkeys(names, config))


_COMPRESSORS: dict[Precision, Callable[[Any, list[str]], Any]] = {"int8": _int8, "int4": _int4, "palette4": _palette4}
