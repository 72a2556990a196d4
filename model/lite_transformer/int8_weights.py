"""Weights in 8 bits on disk: a matrix is rounded to whole multiples of one scale per row."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = "_scale"  # the scales of NAME are NAME_scale, as in compressed-tensors
_MAX = 127


def to_int8(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every matrix as int8 with one float32 scale per row (first dimension); the rest, which is small, as float16."""
    stored: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if tensor.dim() < 2:
            stored[name] = tensor.half()
            continue
        rows = tensor.float().flatten(1)
        # A row of zeros keeps its zeros; one that is not finite stays so, by its scale.
        scale = rows.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / _MAX
        whole = (rows / scale[:, None]).round().nan_to_num()
        stored[name], stored[name + SCALE] = whole.to(torch.int8).view_as(tensor), scale
    return stored


def from_int8(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What ``to_int8`` wrote, its matrices in float32; tensors of other types as they are.

    Raises:
        ValueError: scales are missing, or not one per row; the message names the tensor.
    """
    weights = dict(stored)
    for name, whole in stored.items():
        if whole.dtype != torch.int8:
            continue
        scale = weights.pop(name + SCALE, None)
        if scale is None or whole.dim() < 2 or scale.shape != whole.shape[:1]:
            raise ValueError(f"{name} is int8 without a scale for each of its rows")
        weights[name] = (whole.flatten(1) * scale[:, None].float()).view_as(whole)
    return weights
