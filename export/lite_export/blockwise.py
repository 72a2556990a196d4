"""Weights in blocks of small integers: the arithmetic of ONNX Runtime's ``MatMulNBits`` and ``GatherBlockQuantized``.

A row is cut into blocks, each with a scale and a zero point: ``weight = (integer - zero point) * scale``.
Shapes: N rows (outputs), K columns (inputs), J = ceil(K / block) blocks a row, Y = block * bits / 8 bytes a block.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

SMALLEST_BLOCK = 16


class Blocks(NamedTuple):
    """A packed matrix, lower bits first. Without ``zero_points`` the zero point is the middle, ``2 ** (bits - 1)``."""

    packed: UInt8[np.ndarray, "N J Y"]
    scales: Float[np.ndarray, "N J"]
    zero_points: UInt8[np.ndarray, "N Z"] | None


def block_size(columns: int, largest: int) -> int:
    """The power of two from 16 (the kernels' least) to ``largest`` that stores a row in the fewest 8-bit weights.

    Counted are the zeros that fill up the last block and a scale of four bytes a block; the larger of two equals wins.
    """
    sizes = [2**n for n in range(SMALLEST_BLOCK.bit_length() - 1, largest.bit_length())]
    return min(reversed(sizes), key=lambda size: -(-columns // size) * (size + 4))


def pack(weight: Float[np.ndarray, "N K"], bits: int, block: int, symmetric: bool) -> Blocks:
    """Round every weight to the nearest of its block's levels: at most half a step away.

    ``symmetric``: the zero point is the middle, and the largest weight of either sign sets the scale. Otherwise the
    levels span the block's smallest to largest weight (zero included), and its zero point is stored.
    """
    top, middle = 2**bits - 1, 2 ** (bits - 1)
    blocks = _cut(weight.astype(np.float32), block)
    if symmetric:
        scales = np.abs(blocks).max(-1) / (middle - 1)
        zeros = np.full_like(scales, middle)
    else:
        low, high = blocks.min(-1, initial=0.0), blocks.max(-1, initial=0.0)
        scales = (high - low) / top
        zeros = np.rint(-low / _nonzero(scales))
    levels = np.rint(blocks / _nonzero(scales)[..., None]) + zeros[..., None]
    packed = pack_bits(levels.clip(0, top).astype(np.uint8), bits)
    return Blocks(packed, scales, None if symmetric else pack_bits(zeros.astype(np.uint8), bits))


def unpack(blocks: Blocks, bits: int, columns: int) -> Float[np.ndarray, "N K"]:
    """The matrix that the kernels compute with."""
    count = blocks.scales.shape[1]
    zeros = np.full((1, 1), 2 ** (bits - 1)) if blocks.zero_points is None else unpack_bits(blocks.zero_points, bits)
    levels = unpack_bits(blocks.packed, bits).astype(np.float32) - zeros[:, :count, None]
    weight = levels.astype(np.float32) * blocks.scales[..., None]
    return weight.reshape(len(weight), -1)[:, :columns]


def pack_bits(values: UInt8[np.ndarray, "*N L"], bits: int) -> UInt8[np.ndarray, "*N Y"]:
    """Several values a byte along the last axis, the first in the lowest bits; filled up with zeros."""
    each = 8 // bits
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % each)])
    grouped = padded.reshape(*values.shape[:-1], -1, each)
    return np.bitwise_or.reduce(grouped << (np.arange(each, dtype=np.uint8) * bits), axis=-1)


def unpack_bits(packed: UInt8[np.ndarray, "*N Y"], bits: int) -> UInt8[np.ndarray, "*N L"]:
    """The inverse of ``pack_bits``, filling included."""
    shifts = np.arange(8 // bits, dtype=np.uint8) * bits
    return (packed[..., None] >> shifts & (2**bits - 1)).reshape(*packed.shape[:-1], -1)


def _cut(weight: Float[np.ndarray, "N K"], block: int) -> Float[np.ndarray, "N J B"]:
    rows, columns = weight.shape
    return np.pad(weight, ((0, 0), (0, -columns % block))).reshape(rows, -1, block)


def _nonzero(scales: Float[np.ndarray, "N J"]) -> Float[np.ndarray, "N J"]:
    return np.where(scales == 0, np.float32(1), scales)
