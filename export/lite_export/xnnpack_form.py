"""The export form rearranged once more, for XNNPACK: it takes over no layer norm, and no slice of a dynamic length.

So a norm becomes products with a row of equal numbers, and the encoder keeps its attending and its convolving
channels apart, cutting linears at export instead of activations at run time. The step is of fixed length: there
slices are free, and only the norms change. Same weights, same results; what is saved are the crossings between
XNNPACK and the interpreter, which cost more than a small operation itself.

Shapes: B is 1; S source tokens; C channels; "parts" are a tensor's channels in the mixer's one or two groups.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lite_export.export_form import Convolution, attend, heads_apart, heads_joined, scaled_query
from lite_export.flavours import Slots
from lite_export.graphs import StepGraph
from lite_transformer.attention import MultiHeadAttention, padding_bias
from lite_transformer.convolution import ConvolutionBranch
from lite_transformer.layers import DecoderLayer, EncoderLayer
from lite_transformer.model import LiteTransformer

Parts = Sequence[Tensor]


class PartsNorm(nn.Module):
    """Layer norm of channels that come in parts."""

    def __init__(self, norm: nn.LayerNorm, sizes: Sequence[int]) -> None:
        super().__init__()
        self.epsilon = norm.eps
        self.gains = nn.ParameterList(norm.weight.detach().split(list(sizes)))
        self.offsets = nn.ParameterList(norm.bias.detach().split(list(sizes)))
        # A product with these is the mean over all channels; buffers, so that no recipe quantizes them.
        self.rows = [f"row{i}" for i in range(len(sizes))]
        for name, size in zip(self.rows, sizes, strict=True):
            self.register_buffer(name, torch.full((1, size), 1.0 / sum(sizes)))

    def forward(self, parts: Parts) -> list[Tensor]:
        mean = self._mean(parts)
        centred = [part - mean for part in parts]
        scale = torch.rsqrt(self._mean([part * part for part in centred]) + self.epsilon)
        return [c * scale * g + o for c, g, o in zip(centred, self.gains, self.offsets, strict=True)]

    def _mean(self, parts: Parts) -> Float[Tensor, "*N 1"]:
        means = [F.linear(part, getattr(self, name)) for part, name in zip(parts, self.rows, strict=True)]
        return means[0] if len(means) == 1 else means[0] + means[1]


class WholeNorm(nn.Module):
    """Layer norm as products."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = PartsNorm(norm, [norm.weight.numel()])

    def forward(self, x: Float[Tensor, "*N C"]) -> Float[Tensor, "*N C"]:
        return self.norm([x])[0]


def apart_step(model: LiteTransformer) -> StepGraph:
    """``StepGraph`` for XNNPACK, a copy: its layer norms are products, and its lookup is plain."""
    graph = copy.deepcopy(StepGraph(model, Slots(model.config.max_target)))
    for module in list(graph.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.LayerNorm):
                setattr(module, name, WholeNorm(child))
    graph.form.embedding = lookup(graph.form.embedding)
    return graph


def lookup(embedding: nn.Module) -> nn.Embedding:
    """An embedding whose table is its own, and which knows nothing of padding.

    A table inside and outside of the delegate would keep the projection out of it (the file has both once); and
    ExecuTorch finds a quantized lookup by its arguments, of which the padding's number, for training, is not one.
    """
    assert isinstance(embedding, nn.Embedding)
    return nn.Embedding.from_pretrained(embedding.weight.detach().clone())


class ApartAttention(nn.Module):
    """Self-attention with a linear each for query, key and value."""

    def __init__(self, attention: MultiHeadAttention) -> None:
        super().__init__()
        self.heads, self.query = attention.heads, scaled_query(attention)
        self.key, self.value, self.output = attention.key, attention.value, attention.output

    def forward(self, x: Float[Tensor, "S C"], bias: Float[Tensor, "1 1 S"]) -> Float[Tensor, "S C"]:
        queries, keys, values = (heads_apart(linear(x), self.heads) for linear in (self.query, self.key, self.value))
        return self.output(heads_joined(attend(queries, keys, values, bias)))


class ApartConvolution(Convolution):
    """The short-range branch with a linear each for the values and the gates of its GLU."""

    def __init__(self, branch: ConvolutionBranch) -> None:
        super().__init__(branch, Slots(1))
        if self.glu:
            del self.input
            self.values, self.gates = cut_rows(branch.input, [self.width, self.width])

    def _gated(self, x: Tensor) -> Tensor:
        return self.values(x) * self.gates(x).sigmoid() if self.glu else self.input(x)


class ApartLayer(nn.Module):
    """One encoder layer whose stream stays in parts."""

    def __init__(self, layer: EncoderLayer, sizes: Sequence[int]) -> None:
        super().__init__()
        mixer = layer.mixer
        self.pre = layer.mixer_residual.pre
        self.attention = ApartAttention(mixer.attention)
        self.convolution = ApartConvolution(mixer.convolution) if mixer.convolution is not None else None
        self.mixer_norm = PartsNorm(layer.mixer_residual.norm, sizes)
        self.ffn_norm = PartsNorm(layer.ffn_residual.norm, sizes)
        self.expand, self.contracts = layer.ffn.expand, nn.ModuleList(cut_rows(layer.ffn.contract, sizes))

    def forward(self, parts: Parts, bias: Tensor, keep: Float[Tensor, "S 1"]) -> Parts:
        entered = self.mixer_norm(parts) if self.pre else parts
        mixed = [self.attention(entered[0], bias)]
        if self.convolution is not None:
            mixed.append(self.convolution.sequence(entered[1], keep))
        parts = self._leave(parts, mixed, self.mixer_norm)
        entered = self.ffn_norm(parts) if self.pre else parts
        middle = self.expand(joined_parts(entered)).relu()
        return self._leave(parts, [contract(middle) for contract in self.contracts], self.ffn_norm)

    def _leave(self, parts: Parts, updates: Parts, norm: nn.Module) -> Parts:
        totals = [part + update for part, update in zip(parts, updates, strict=True)]
        return totals if self.pre else norm(totals)


class ApartEncode(nn.Module):
    """``EncodeGraph`` for XNNPACK: the same inputs and outputs, those of the flavour ``Slots``."""

    def __init__(self, model: LiteTransformer) -> None:
        super().__init__()
        assert model.encoder is not None and model.config.encoder is not None
        encoder, width = model.encoder, model.config.width
        attending = model.config.encoder.attention_width
        self.sizes = [n for n in (attending, width - attending) if n]
        self.embedding, self.scale, self.positions = lookup(encoder.embedding), encoder.scale, encoder.positions
        self.layers = nn.ModuleList(ApartLayer(cast("EncoderLayer", layer), self.sizes) for layer in encoder.layers)
        self.norm = PartsNorm(encoder.norm, self.sizes) if isinstance(encoder.norm, nn.LayerNorm) else nn.Identity()
        crosses = [cast("MultiHeadAttention", cast("DecoderLayer", layer).cross) for layer in model.decoder.layers]
        self.heads = crosses[0].heads
        self.memory = nn.ModuleList(linear for cross in crosses for linear in (cross.key, cross.value))

    def forward(self, source: Int[Tensor, "1 S"], mask: Bool[Tensor, "1 S"]) -> tuple[Tensor, ...]:
        # The only cuts at run time, before XNNPACK begins.
        words, places = (self._cut(x) for x in (self.embedding(source), self.positions.of_mask(mask)))
        parts: Parts = [(word * self.scale + place)[0] for word, place in zip(words, places, strict=True)]
        bias, keep = padding_bias(mask, torch.float32)[0], mask.to(torch.float32)[0, :, None]
        outputs = []
        for layer in self.layers:
            parts = layer(parts, bias, keep)
            outputs.append(joined_parts(parts))
        memory = joined_parts(self.norm(parts))
        # Contiguous, or the file would expect its own outputs transposed when they come back as inputs.
        return *(heads_apart(linear(memory), self.heads).contiguous() for linear in self.memory), bias, *outputs

    def _cut(self, x: Float[Tensor, "1 S C"]) -> Parts:
        return Slots(1).parts(x, self.sizes, -1)


def cut_rows(linear: nn.Linear, sizes: Sequence[int]) -> list[nn.Linear]:
    """One linear as several, each giving the next so many of its outputs."""
    pieces, start = [], 0
    for size in sizes:
        piece = nn.Linear(linear.in_features, size, bias=linear.bias is not None)
        with torch.no_grad():
            piece.weight.copy_(linear.weight[start : start + size])
            if linear.bias is not None:
                piece.bias.copy_(linear.bias[start : start + size])
        pieces.append(piece)
        start += size
    return pieces


def joined_parts(parts: Parts) -> Float[Tensor, "*N C"]:
    """All channels side by side."""
    return torch.cat(list(parts), dim=-1) if len(parts) > 1 else parts[0]
