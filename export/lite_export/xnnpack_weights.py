"""Matrices in few bits, as XNNPACK stores them.

8 bit: one scale per output, the same for a table's row where it is looked up and where it projects. 4 bit: groups of
32 inputs share a scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

GROUP = 32


@dataclass(frozen=True)
class Weight:
    """A quantized matrix: its numbers and scales as stored, and how XNNPACK calls it."""

    numbers: bytes
    scales: bytes
    datatype: str
    kind: str
    parameters: dict[str, Any]


def eight_bit(matrix: Float[np.ndarray, "O I"]) -> Weight:
    """One scale per output."""
    scales = (np.abs(matrix).max(axis=1, keepdims=True) / 127).astype(np.float32)
    scales[scales == 0] = 1
    numbers = np.rint(matrix / scales).astype(np.int8)
    parameters = {"scale": [], "channel_dim": 0, "num_scales": len(matrix)}
    return Weight(numbers.tobytes(), scales.tobytes(), "xnn_datatype_qcint8", "PerChannelQuant", parameters)


def four_bit(matrix: Float[np.ndarray, "O I"]) -> Weight:
    """One bfloat16 scale per output and group of inputs."""
    groups = matrix.reshape(len(matrix), -1, GROUP)
    scales = _best_scales(groups)
    numbers = np.clip(np.rint(groups / _widened(scales)), -8, 7)
    parameters = {"scale": [], "channel_dim": 0, "group_size": GROUP, "num_scales": scales.size}
    packed = _packed(numbers.reshape(matrix.shape))
    return Weight(packed.tobytes(), scales.tobytes(), "xnn_datatype_qbint4", "PerChannelGroupQuant", parameters)


def _best_scales(groups: Float[np.ndarray, "O G 32"]) -> np.ndarray:
    """Of some scales that cut off more or less of the largest weights, the one that loses least; bfloat16's bits."""
    largest = np.abs(groups).max(axis=-1, keepdims=True)
    best, least = _narrowed(largest), np.full(largest.shape, np.inf)
    for divisor in np.arange(6.5, 10.5, 0.5):
        scales = _narrowed(np.where(largest > 0, largest, 1) / divisor)
        wide = _widened(scales)
        lost = ((np.clip(np.rint(groups / wide), -8, 7) * wide - groups) ** 2).sum(axis=-1, keepdims=True)
        best, least = np.where(lost < least, scales, best), np.minimum(lost, least)
    return best


def _narrowed(numbers: np.ndarray) -> np.ndarray:
    """Float32 rounded to bfloat16's upper half, as its bits."""
    return ((numbers.astype(np.float32).view(np.uint32) + 0x8000) >> 16).astype(np.uint16)


def _widened(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _packed(numbers: Float[np.ndarray, "O I"]) -> UInt8[np.ndarray, "O I/2"]:
    """Two to a byte, the earlier in the lower half, counted from -8."""
    shifted = (numbers + 8).astype(np.uint8)
    return shifted[:, ::2] | shifted[:, 1::2] << 4
