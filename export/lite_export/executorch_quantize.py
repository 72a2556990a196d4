"""Precisions of an ExecuTorch export, by torchao's recipes.

8 bit: linears have one scale per output, and their activations are quantized as they come; the embedding has one
scale per word. Both are symmetric, so a table that embeds and projects gives the same bytes twice, to be stored once.
4 bit: linears of the layers in groups of 32 inputs. The table stays at 8 bit: XNNPACK and the lookup pack pairs of
4-bit numbers in opposite orders, so at 4 bit it would be stored twice, and worse, for as many bytes.
Taps, norms and positions are no weights of linears: they stay as they are.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

_GROUP = 32
_Module = TypeVar("_Module", bound=nn.Module)


def quantized(graph: _Module, precision: str) -> _Module:
    """A copy of ``graph`` at ``precision``; ``graph`` itself is left alone."""
    if precision == "fp32":
        return graph
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis, PerGroup

    graph = copy.deepcopy(graph)

    def is_layer(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and not name.endswith("projection") and module.in_features % _GROUP == 0

    def is_linear(module: nn.Module, _: str) -> bool:
        # What was quantized before has a weight of another class.
        return isinstance(module, nn.Linear) and type(module.weight) in (nn.Parameter, torch.Tensor)

    def is_embedding(module: nn.Module, _: str) -> bool:
        return isinstance(module, nn.Embedding)

    if precision == "int4":
        four = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerGroup(_GROUP))
        quantize_(graph, four, is_layer)
    eight = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int8, weight_granularity=PerAxis(0))
    quantize_(graph, eight, is_linear)
    quantize_(graph, IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0)), is_embedding)
    return graph
