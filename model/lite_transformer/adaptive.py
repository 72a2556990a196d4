"""Adaptive input representations and the tied adaptive softmax (Baevski & Auli 2019) of the language model."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lite_transformer.config import AdaptiveConfig


class AdaptiveEmbedding(nn.Module):
    """Frequent words get wide vectors, rare bands ``factor`` times narrower ones, each projected to ``width``."""

    def __init__(self, vocab: int, width: int, config: AdaptiveConfig) -> None:
        super().__init__()
        self.width = width
        self.bounds = (0, *config.cutoffs, vocab)
        self.bands = nn.ModuleList()
        self.projections = nn.ModuleList()
        for i, (low, high) in enumerate(zip(self.bounds, self.bounds[1:], strict=False)):
            narrow = width // config.factor**i
            band, projection = nn.Embedding(high - low, narrow), nn.Linear(narrow, width, bias=False)
            nn.init.normal_(band.weight, std=narrow**-0.5)
            nn.init.xavier_uniform_(projection.weight)
            self.bands.append(band)
            self.projections.append(projection)

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        out = torch.zeros(*tokens.shape, self.width, device=tokens.device)
        for low, high, band, project in zip(self.bounds, self.bounds[1:], self.bands, self.projections, strict=False):
            inside = (tokens >= low) & (tokens < high)
            vectors = project(band((tokens - low).clamp(0, high - low - 1)))
            out = out + vectors * inside[..., None]
        return out


class AdaptiveProjection(nn.Module):
    """Log-probabilities of every word, over the embedding's own bands and projections (tied).

    The head predicts frequent words and one class for each rare band; it is as wide as the model,
    so only the tails go through their band's projection.
    """

    def __init__(self, table: AdaptiveEmbedding) -> None:
        super().__init__()
        self.table = table
        self.classes = nn.Linear(table.width, len(table.bands) - 1, bias=False)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T V"]:
        bands: Any = self.table.bands
        projections: Any = self.table.projections
        words = x @ bands[0].weight.T
        head = torch.cat([words, self.classes(x)], dim=-1).log_softmax(-1)
        common = bands[0].num_embeddings
        parts = [head[..., :common]]
        for i in range(1, len(bands)):
            tail = ((x @ projections[i].weight) @ bands[i].weight.T).log_softmax(-1)
            parts.append(tail + head[..., common + i - 1 : common + i])
        return torch.cat(parts, dim=-1)
