"""The export form: the reference's layers rearranged into what runtimes run fast, with the same results.

Activations of a step are 2-D; query, key and value are one linear whose query part carries the attention scale;
softmaxed kernels of lightweight convolutions are constants; the cross keys and values of all decoder layers are one
linear; attention is two plain matrix products. A ``Flavour`` says what a backend wants otherwise. Tests prove every
kind of model, in every flavour, equal to the reference.

Shapes: N is the batch where the flavour is ``batched``, else that axis is absent; B is then 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lite_export.flavours import Clock, Flavour
from lite_transformer.attention import MultiHeadAttention, padding_bias
from lite_transformer.convolution import ConvolutionBranch
from lite_transformer.layers import DecoderLayer, EncoderLayer, FeedForward, LongShortRangeAttention, Residual
from lite_transformer.model import LiteTransformer


class LayerState(NamedTuple):
    """One decoder layer's memory; see ``state_specs``. The window is None where there is no convolution."""

    keys: Tensor
    values: Tensor
    window: Tensor | None


class Attention(nn.Module):
    """Self-attention over the attending channels: one linear for query, key and value."""

    def __init__(self, attention: MultiHeadAttention, flavour: Flavour) -> None:
        super().__init__()
        self.heads, self.flavour = attention.heads, flavour
        self.qkv = _joined([scaled_query(attention), attention.key, attention.value])
        self.output = attention.output

    def sequence(self, x: Float[Tensor, "*N S C"], bias: Tensor) -> Float[Tensor, "*N S C"]:
        """Every frame attends to every frame that ``bias`` does not hide."""
        together = heads_apart(self.qkv(x), 3 * self.heads)
        queries, keys, values = self.flavour.parts(together, [self.heads] * 3, -3)
        return self.output(heads_joined(attend(queries, keys, values, bias)))

    def step(
        self, x: Float[Tensor, "B C"], keys: Tensor, values: Tensor, now: Clock
    ) -> tuple[Float[Tensor, "B C"], Tensor, Tensor]:
        """One frame attends to the cache, which first takes that frame's key and value."""
        together = _rows_as_heads(self.qkv(x), 3 * self.heads, self.flavour.batched)
        query, key, value = self.flavour.parts(together, [self.heads] * 3, -3)
        keys = self.flavour.append(keys, key, now)
        values = self.flavour.append(values, value, now)
        context = attend(query, keys, values, self.flavour.self_bias(now))
        return self.output(context.reshape(x.shape)), keys, values


class CrossAttention(nn.Module):
    """Attention over the encoder's output, whose keys and values were projected once."""

    def __init__(self, attention: MultiHeadAttention, flavour: Flavour) -> None:
        super().__init__()
        self.heads, self.batched = attention.heads, flavour.batched
        self.query, self.output = scaled_query(attention), attention.output

    def forward(self, x: Float[Tensor, "B C"], keys: Tensor, values: Tensor, bias: Tensor) -> Float[Tensor, "B C"]:
        query = _rows_as_heads(self.query(x), self.heads, self.batched)
        return self.output(attend(query, keys, values, bias).reshape(x.shape))


class Convolution(nn.Module):
    """The short-range branch over the convolving channels."""

    def __init__(self, branch: ConvolutionBranch, flavour: Flavour) -> None:
        super().__init__()
        self.flavour, self.kernel, self.heads, self.glu = flavour, branch.kernel, branch.heads, branch.glu
        self.legacy_padding = branch.legacy_padding
        self.input, self.output, self.predict = branch.input, branch.output, branch.predict
        self.width = branch.output.in_features
        self.taps: Tensor
        self.ones: Tensor
        if branch.taps is not None:
            taps = branch.taps.detach().softmax(-1).repeat_interleave(self.width // branch.heads, dim=0)
            self.register_buffer("taps", taps.t().contiguous() if branch.causal else taps[:, None, None, :].clone())
        self.channels: Tensor
        self.register_buffer("ones", torch.ones(1, branch.kernel))
        self.register_buffer("channels", torch.ones(self.width // branch.heads))

    def sequence(self, x: Float[Tensor, "*N S C"], keep: Float[Tensor, "*N S 1"]) -> Float[Tensor, "*N S C"]:
        """Convolve every frame with its neighbours; frames where ``keep`` is 0 are padding."""
        frames = self._gated(x * keep) if self.legacy_padding else self._gated(x) * keep
        if self.predict is not None:
            return self.output(self._dynamic(frames))
        # As an image of one line: mobile kernels know 2-D depthwise convolution.
        lines = frames.transpose(-1, -2).unsqueeze(-2)
        lines = lines if self.flavour.batched else lines.unsqueeze(0)
        mixed = F.conv2d(lines, self.taps, padding=(0, self.kernel // 2), groups=self.width)
        mixed = mixed if self.flavour.batched else mixed.squeeze(0)
        return self.output(mixed.squeeze(-2).transpose(-1, -2))

    def step(self, x: Float[Tensor, "B C"], window: Tensor, now: Clock) -> tuple[Float[Tensor, "B C"], Tensor]:
        """Convolve one frame with those before it; returns the window (*N, K - 1, C) that includes it."""
        frame = self._gated(x)
        past = self.flavour.window(window, now)
        joined = torch.cat([past, frame[:, None] if self.flavour.batched else frame], dim=-2)
        weighted = joined * (self.taps if self.predict is None else self._predicted(frame))
        return self.output(self._summed(weighted)), joined.narrow(-2, 1, self.kernel - 1)

    def _summed(self, weighted: Float[Tensor, "*N K C"]) -> Float[Tensor, "B C"]:
        if self.flavour.batched:
            return weighted.sum(-2)
        # A product with ones: XNNPACK takes over no sum of this kind.
        return torch.bmm(self.ones[None], weighted[None])[0]

    def _gated(self, x: Tensor) -> Tensor:
        frames = self.input(x)
        if not self.glu:
            return frames
        values, gates = self.flavour.parts(frames, [self.width, self.width], -1)
        return values * gates.sigmoid()

    def _predicted(self, frame: Float[Tensor, "B C"]) -> Tensor:
        """Dynamic kernels of one frame, spread over channels: (*N, K, C)."""
        assert self.predict is not None
        taps = self.predict(frame).view(-1, self.heads, self.kernel).softmax(-1).transpose(1, 2)
        # Products with ones spread them: XNNPACK takes over no expansion.
        spread = (taps[..., None] * self.channels).flatten(-2)
        return spread if self.flavour.batched else spread[0]

    def _dynamic(self, frames: Float[Tensor, "*N S C"]) -> Float[Tensor, "*N S C"]:
        assert self.predict is not None
        taps = self.predict(frames).unflatten(-1, (self.heads, self.kernel)).softmax(-1)[..., None]
        padded = F.pad(frames, (0, 0, self.kernel // 2, self.kernel - 1 - self.kernel // 2))
        spans = padded.unfold(-2, self.kernel, 1).unflatten(-2, (self.heads, self.width // self.heads))
        # A matrix product: to lay out an elementwise one, torch.export would fix that sources outgrow the kernel.
        return (spans @ taps).flatten(-3)


class Mixer(nn.Module):
    """Long-Short Range Attention: the first channels attend, the rest convolve."""

    def __init__(self, mixer: LongShortRangeAttention, flavour: Flavour) -> None:
        super().__init__()
        self.flavour, self.split = flavour, [n for n in mixer.split if n]
        self.attention = Attention(mixer.attention, flavour)
        self.convolution = Convolution(mixer.convolution, flavour) if mixer.convolution is not None else None

    def sequence(self, x: Tensor, bias: Tensor, keep: Tensor) -> Tensor:
        """All frames at once, each seeing both sides."""
        if self.convolution is None:
            return self.attention.sequence(x, bias)
        long, short = self.flavour.parts(x, self.split, -1)
        return torch.cat([self.attention.sequence(long, bias), self.convolution.sequence(short, keep)], dim=-1)

    def step(self, x: Float[Tensor, "B C"], past: LayerState, now: Clock) -> tuple[Tensor, LayerState]:
        """One frame, seeing those before it."""
        if self.convolution is None or past.window is None:
            mixed, keys, values = self.attention.step(x, past.keys, past.values, now)
            return mixed, LayerState(keys, values, None)
        long, short = self.flavour.parts(x, self.split, -1)
        mixed, keys, values = self.attention.step(long, past.keys, past.values, now)
        local, window = self.convolution.step(short, past.window, now)
        return torch.cat([mixed, local], dim=-1), LayerState(keys, values, window)


class EncoderForm(nn.Module):
    """``(source (B, S), mask (B, S)) -> (cross keys and values of every layer..., cross mask), layer outputs``.

    Without batching the graph still takes B = 1 rows of ids, and drops the axis inside.
    """

    def __init__(self, model: LiteTransformer, flavour: Flavour) -> None:
        super().__init__()
        assert model.encoder is not None
        encoder, self.flavour = model.encoder, flavour
        self.embedding, self.scale, self.positions, self.norm = (
            encoder.embedding,
            encoder.scale,
            encoder.positions,
            encoder.norm,
        )
        layers = [cast("EncoderLayer", layer) for layer in encoder.layers]
        self.mixers = nn.ModuleList(Mixer(layer.mixer, flavour) for layer in layers)
        self.mixer_residuals = nn.ModuleList(layer.mixer_residual for layer in layers)
        self.ffns = nn.ModuleList(layer.ffn for layer in layers)
        self.ffn_residuals = nn.ModuleList(layer.ffn_residual for layer in layers)
        crosses = [cast("MultiHeadAttention", layer.cross) for layer in model.decoder.layers]
        self.memories = 2 * len(crosses)
        self.heads = crosses[0].heads
        self.memory = _joined([linear for cross in crosses for linear in (cross.key, cross.value)])

    def forward(self, source: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> tuple[list[Tensor], list[Tensor]]:
        x = self.embedding(source) * self.scale + self.positions.of_mask(mask)
        bias, keep = padding_bias(mask, x.dtype), mask.to(x.dtype)[..., None]
        if not self.flavour.batched:
            x, bias, keep = x[0], bias[0], keep[0]
        outputs = []
        for mixer, mixer_residual, ffn, ffn_residual in self._layers():
            x = mixer_residual.leave(x, mixer.sequence(mixer_residual.enter(x), bias, keep))
            x = ffn_residual.leave(x, ffn(ffn_residual.enter(x)))
            outputs.append(x)
        together = heads_apart(self.memory(self.norm(x)), self.memories * self.heads)
        memories = self.flavour.parts(together.contiguous(), [self.heads] * self.memories, -3)
        # Contiguous, so that no exporter bakes a transposed memory order into its inputs later.
        return [*(m.contiguous() for m in memories), bias], outputs

    def _layers(self) -> Sequence[tuple[Mixer, Residual, FeedForward, Residual]]:
        lists = (self.mixers, self.mixer_residuals, self.ffns, self.ffn_residuals)
        return cast("list[tuple[Mixer, Residual, FeedForward, Residual]]", list(zip(*lists, strict=True)))


class StepLayer(nn.Module):
    """One decoder layer for one token."""

    def __init__(self, layer: DecoderLayer, flavour: Flavour) -> None:
        super().__init__()
        assert layer.cross is not None
        self.mixer, self.cross = Mixer(layer.mixer, flavour), CrossAttention(layer.cross, flavour)
        self.mixer_residual, self.cross_residual = layer.mixer_residual, layer.cross_residual
        self.ffn, self.ffn_residual = layer.ffn, layer.ffn_residual

    def forward(
        self,
        x: Float[Tensor, "B C"],
        now: Clock,
        past: LayerState,
        cross: tuple[Tensor, Tensor],
        cross_bias: Tensor,
    ) -> tuple[Float[Tensor, "B C"], LayerState]:
        mixed, state = self.mixer.step(self.mixer_residual.enter(x), past, now)
        x = self.mixer_residual.leave(x, mixed)
        x = self.cross_residual.leave(x, self.cross(self.cross_residual.enter(x), *cross, cross_bias))
        return self.ffn_residual.leave(x, self.ffn(self.ffn_residual.enter(x))), state


class StepForm(nn.Module):
    """``(tokens (B), position (1), states, crosses, cross bias) -> (logits (B, V), new states, layer outputs)``."""

    def __init__(self, model: LiteTransformer, flavour: Flavour) -> None:
        super().__init__()
        decoder, self.flavour = model.decoder, flavour
        self.embedding, self.scale, self.positions = decoder.embedding, decoder.scale, decoder.positions
        self.norm, self.projection = decoder.norm, decoder.projection
        self.layers = nn.ModuleList(StepLayer(cast("DecoderLayer", layer), flavour) for layer in decoder.layers)

    def forward(
        self,
        tokens: Int[Tensor, " B"],
        position: Int[Tensor, " 1"],
        states: Sequence[LayerState],
        crosses: Sequence[tuple[Tensor, Tensor]],
        cross_bias: Tensor,
    ) -> tuple[Float[Tensor, "B V"], list[LayerState], list[Tensor]]:
        row = self.positions.table.index_select(0, position + self.positions.first)
        x = self.embedding(tokens) * self.scale + row
        now = self.flavour.clock(position)
        news, outputs = [], []
        for layer, state, cross in zip(self.layers, states, crosses, strict=True):
            x, new = layer(x, now, state, cross, cross_bias)
            news.append(new)
            outputs.append(x)
        return self.projection(self.norm(x)), news, outputs


def _joined(linears: Sequence[nn.Linear]) -> nn.Linear:
    """Several linears of one input as one, outputs in order."""
    joined = nn.Linear(linears[0].in_features, sum(linear.out_features for linear in linears))
    with torch.no_grad():
        joined.weight.copy_(torch.cat([linear.weight for linear in linears]))
        joined.bias.copy_(torch.cat([linear.bias for linear in linears]))
    return joined


def scaled_query(attention: MultiHeadAttention) -> nn.Linear:
    """The query projection times ``1 / sqrt(D)``."""
    scaled = _joined([attention.query])
    with torch.no_grad():
        for parameter in scaled.parameters():
            parameter.mul_((scaled.in_features // attention.heads) ** -0.5)
    return scaled


def heads_apart(x: Float[Tensor, "*N S C"], heads: int) -> Float[Tensor, "*N H S D"]:
    """Channels as heads, heads before frames."""
    return x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(-2, -3)


def heads_joined(x: Float[Tensor, "*N H S D"]) -> Float[Tensor, "*N S C"]:
    """The inverse of ``heads_apart``."""
    return x.transpose(-2, -3).flatten(-2)


def _rows_as_heads(x: Float[Tensor, "B C"], heads: int, batched: bool) -> Tensor:
    """One token's heads: (B, H, 1, D), without the batch where rows are not batched (B = 1)."""
    shape = (heads, 1, x.shape[-1] // heads)
    return x.view(-1, *shape) if batched else x.view(shape)


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """Attention of queries that carry their scale: (*N, H, T, D) over (*N, H, S, D)."""
    scores = _product(queries, keys.transpose(-1, -2))
    if bias is not None:
        scores = scores + bias
    return _product(scores.softmax(-1), values)


def _product(a: Tensor, b: Tensor) -> Tensor:
    # In three dimensions bmm: matmul would lower to copies that mobile backends do not take over.
    return torch.bmm(a, b) if a.dim() == b.dim() == 3 else torch.matmul(a, b)
