"""Multi-head attention over explicit keys and values, so that a cache is just a longer argument."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Finite, so that a fully masked row stays a number, and small enough for float16 (max 65504).
MASKED = -1e4


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2), biased projections.

    Shapes: B batch, H heads, D channels a head, T queries, S keys.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(linear.weight, gain=2**-0.5)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def _split(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B H T D"]:
        batch, time, width = x.shape
        if time == 1:
            # One token needs no transposition: a decode step is bound by the number of small operations.
            return x.reshape(batch, self.heads, 1, width // self.heads)
        return x.view(batch, time, self.heads, width // self.heads).transpose(1, 2)

    def memory(self, x: Float[Tensor, "B S C"]) -> tuple[Float[Tensor, "B H S D"], Float[Tensor, "B H S D"]]:
        """Keys and values of ``x``: what a cache holds."""
        return self._split(self.key(x)), self._split(self.value(x))

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        keys: Float[Tensor, "B H S D"],
        values: Float[Tensor, "B H S D"],
        bias: Float[Tensor, "#B 1 #T S"] | None,
    ) -> Float[Tensor, "B T C"]:
        """Attend from ``x``; ``bias`` is added to the scores (0 to keep, ``MASKED`` to hide)."""
        queries = self._split(self.query(x)) * (x.shape[-1] // self.heads) ** -0.5
        scores = queries @ keys.transpose(2, 3)
        if bias is not None:
            scores = scores + bias
        context = self.dropout(scores.softmax(-1)) @ values
        if x.shape[1] > 1:
            context = context.transpose(1, 2)
        return self.output(context.reshape(x.shape))


def causal_bias(new: int, past: int, like: Tensor) -> Float[Tensor, "1 1 {new} {past}+{new}"]:
    """Hide every key that comes after its query, for ``new`` tokens that follow ``past`` cached ones."""
    rows = torch.arange(new, device=like.device)[:, None] + past
    columns = torch.arange(past + new, device=like.device)[None, :]
    return torch.where(columns > rows, MASKED, 0.0).to(like.dtype)[None, None]


def padding_bias(keep: Tensor, dtype: torch.dtype) -> Float[Tensor, "B 1 1 S"]:
    """Hide padded keys."""
    return ((1.0 - keep.to(dtype)) * MASKED)[:, None, None, :]
