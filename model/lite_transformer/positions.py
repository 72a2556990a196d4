"""Sinusoidal positions, numbered as the original numbers them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class SinusoidalPositions(nn.Module):
    """Fixed sine/cosine table in tensor2tensor's layout (all sines, then all cosines).

    The first real token is number ``pad + 1`` as in fairseq; row ``pad`` is zero.

    Args:
        length: the most tokens a sequence may have.
    """

    def __init__(self, length: int, width: int, pad: int) -> None:
        super().__init__()
        self.first = pad + 1
        self.pad = pad
        self.length = length
        self.table: Tensor
        self.register_buffer("table", self._build(length + self.first, width), persistent=False)

    def _build(self, rows: int, width: int) -> Float[Tensor, "rows width"]:
        half = width // 2
        rate = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000.0) / max(half - 1, 1)))
        angle = torch.arange(rows, dtype=torch.float32)[:, None] * rate[None, :]
        table = torch.cat([angle.sin(), angle.cos()], dim=1)
        table[self.pad] = 0.0
        return table

    def of_mask(self, keep: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch time width"]:
        """Positions that count only real tokens, so padding on either side is neutral."""
        numbers = torch.where(keep, keep.long().cumsum(1) + self.pad, self.pad)
        return self.table[numbers]

    def of_span(self, start: Int[Tensor, " 1"], length: int) -> Float[Tensor, "1 time width"]:
        """Positions ``start .. start + length`` of a sequence without padding before them."""
        return self.table[start + self.first + torch.arange(length, device=start.device)][None]
