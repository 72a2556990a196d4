"""What Core ML packages may be compressed to, and which of their weights are.

Compressed are the matrices of linear layers and the token tables: nearly all bytes. Kernels of convolutions, the
table of positions, biases and normalisations are left as they are: small, and errors in them reach every token. The
token tables keep 8 bits: with 4, int4 loses more tokens than the few bytes are worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lite_runtime.quiet_coremltools import coremltools, quiet

Precision = Literal["fp32", "fp16", "int8", "int4", "palette4"]
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
    if precision in ("fp32", "fp16"):
        return model
    matrices, tables = compressible(model)
    optimize = coremltools("optimize.coreml")
    eight_bits = _linear(optimize, "int8", "per_channel")
    linear = dict.fromkeys(tables, eight_bits)
    with quiet():
        if precision == "palette4":
            palette = optimize.OpPalettizerConfig(
                mode="kmeans", nbits=4, granularity="per_grouped_channel", group_size=PALETTE_ROWS, weight_threshold=0
            )
            model = optimize.palettize_weights(model, _only(optimize, dict.fromkeys(matrices, palette)))
        elif precision == "int4":
            linear |= dict.fromkeys(matrices, _linear(optimize, "int4", "per_block"))
        else:
            linear |= dict.fromkeys(matrices, eight_bits)
        return optimize.linear_quantize_weights(model, _only(optimize, linear))


def compressible(model: Any) -> tuple[list[str], list[str]]:
    """Names of the matrices that only linear layers multiply by, and of the tables that tokens are looked up in."""
    optimize = coremltools("optimize.coreml")
    with quiet():
        weights = optimize.get_weights_metadata(model, weight_threshold=0)
    uses = {name: {user.op_type for user in weight.child_ops} for name, weight in weights.items()}
    matrices = [name for name, kinds in uses.items() if kinds == {"linear"} and weights[name].val.ndim == 2]
    tables = [name for name, kinds in uses.items() if "gather" in kinds and _POSITIONS not in name]
    return matrices, tables


def _linear(optimize: Any, dtype: str, granularity: str) -> Any:
    return optimize.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype=dtype, granularity=granularity, block_size=BLOCK, weight_threshold=0
    )


def _only(optimize: Any, named: dict[str, Any]) -> Any:
    """Compress the weights of these names, each in its way, and no others."""
    return optimize.OptimizationConfig(global_config=None, op_name_configs=named)
