"""Encoder and decoder layers built on Long-Short Range Attention, each usable for sequences and steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lite_transformer.attention import MultiHeadAttention, causal_bias
from lite_transformer.config import ModelConfig, StackConfig
from lite_transformer.convolution import ConvolutionBranch


class MixerState(NamedTuple):
    """What one causal LSRA layer remembers of the tokens before.

    Shapes: keys and values (B, H, t, D); window (B, K - 1, C), or None without a convolution branch.
    """

    keys: Tensor
    values: Tensor
    window: Tensor | None


class LongShortRangeAttention(nn.Module):
    """LSRA (paper, section 4): the first channels attend, the rest convolve, results are concatenated."""

    def __init__(self, config: ModelConfig, stack: StackConfig, layer: int, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.split = (stack.attention_width, config.width - stack.attention_width)
        self.attention = MultiHeadAttention(stack.attention_width, stack.attention_heads, config.attention_dropout)
        self.convolution = None
        if self.split[1]:
            self.convolution = ConvolutionBranch(
                self.split[1],
                stack.kernels[layer],
                stack.convolution_heads,
                stack.convolution,
                stack.glu,
                causal,
                config.weight_dropout,
                legacy_padding=config.padding == "legacy",
            )

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        keep: Bool[Tensor, "B T"] | None,
        bias: Float[Tensor, "#B 1 #T S"] | None,
        past: MixerState | None,
    ) -> tuple[Float[Tensor, "B T C"], MixerState]:
        """Mix ``x`` with itself and with ``past``; returns the state that includes ``x``."""
        long, short = x.split(self.split, dim=-1)
        keys, values = self.attention.memory(long)
        if past is not None:
            keys = torch.cat([past.keys, keys], dim=2)
            values = torch.cat([past.values, values], dim=2)
        mixed = self.attention(long, keys, values, bias)
        window = None
        if self.convolution is not None:
            local, window = self.convolution(short, keep, past.window if past else None)
            mixed = torch.cat([mixed, local], dim=-1)
        return mixed, MixerState(keys, values, window)


class FeedForward(nn.Module):
    """Two linears with a ReLU; Lite Transformer keeps the middle as narrow as the model ("flattened")."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        for linear in (self.expand, self.contract):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        return self.contract(self.expand(x).relu())


class Residual(nn.Module):
    """Where normalisation and dropout sit around a sublayer: before it (pre-norm) or after the sum (post-norm)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def enter(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """What the sublayer reads."""
        return self.norm(x) if self.pre else x

    def leave(self, x: Float[Tensor, "*B C"], update: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """The stream after the sublayer wrote ``update``."""
        total = x + self.dropout(update)
        return total if self.pre else self.norm(total)


class EncoderLayer(nn.Module):
    """LSRA, then the feed-forward network."""

    def __init__(self, config: ModelConfig, stack: StackConfig, layer: int) -> None:
        super().__init__()
        self.mixer = LongShortRangeAttention(config, stack, layer, causal=False)
        self.mixer_residual = Residual(config)
        self.ffn = FeedForward(config.width, stack.ffn_width)
        self.ffn_residual = Residual(config)

    def forward(
        self,
        x: Float[Tensor, "B S C"],
        keep: Bool[Tensor, "B S"] | None,
        bias: Float[Tensor, "B 1 1 S"] | None,
    ) -> Float[Tensor, "B S C"]:
        mixed, _ = self.mixer(self.mixer_residual.enter(x), keep, bias, None)
        x = self.mixer_residual.leave(x, mixed)
        return self.ffn_residual.leave(x, self.ffn(self.ffn_residual.enter(x)))


class DecoderLayer(nn.Module):
    """Causal LSRA, cross-attention where there is an encoder, then the feed-forward network."""

    def __init__(self, config: ModelConfig, stack: StackConfig, layer: int) -> None:
        super().__init__()
        self.mixer = LongShortRangeAttention(config, stack, layer, causal=True)
        self.mixer_residual = Residual(config)
        self.cross = None
        if stack.cross_heads:
            self.cross = MultiHeadAttention(config.width, stack.cross_heads, config.attention_dropout)
            self.cross_residual = Residual(config)
        self.ffn = FeedForward(config.width, stack.ffn_width)
        self.ffn_residual = Residual(config)

    def cross_memory(self, memory: Float[Tensor, "B S C"]) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, D) of the encoder's output, for cross-attention."""
        assert self.cross is not None
        return self.cross.memory(memory)

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        past: MixerState | None,
        cross: tuple[Float[Tensor, "B H S D"], Float[Tensor, "B H S D"]] | None,
        cross_bias: Float[Tensor, "B 1 1 S"] | None,
    ) -> tuple[Float[Tensor, "B T C"], MixerState]:
        """Extend by T tokens; a single token needs no causal mask, everything cached lies before it."""
        time = x.shape[1]
        bias = causal_bias(time, past.keys.shape[2] if past else 0, x) if time > 1 else None
        mixed, state = self.mixer(self.mixer_residual.enter(x), None, bias, past)
        x = self.mixer_residual.leave(x, mixed)
        if self.cross is not None and cross is not None:
            context = self.cross(self.cross_residual.enter(x), *cross, cross_bias)
            x = self.cross_residual.leave(x, context)
        return self.ffn_residual.leave(x, self.ffn(self.ffn_residual.enter(x))), state
