"""What an update differentiates: a model and its loss as one module, which DDP and the compiler see whole."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lite_transformer.model import LiteTransformer


class Objective(nn.Module):
    """Label-smoothed cross-entropy (Szegedy et al. 2016) of a translation model, per target token."""

    def __init__(self, model: LiteTransformer, smoothing: float, precision: str) -> None:
        super().__init__()
        self.model, self.smoothing, self.half_precision = model, smoothing, precision == "bf16"

    def forward(
        self, source: Int[Tensor, "B S"], decoder_input: Int[Tensor, "B T"], labels: Int[Tensor, "B T"]
    ) -> Float[Tensor, ""]:
        """Mean over the labels that are not padding."""
        with torch.autocast(source.device.type, torch.bfloat16, enabled=self.half_precision):
            logits = self.model(source, decoder_input)
        return token_loss(logits, labels, self.model.config.pad, self.smoothing)


def token_loss(
    logits: Float[Tensor, "B T V"],
    labels: Int[Tensor, "B T"],
    pad: int,
    smoothing: float = 0.0,
    reduction: str = "mean",
) -> Float[Tensor, ""]:
    """Cross-entropy in float32 over the labels that are not ``pad``, as mean or sum."""
    flat = logits.flatten(0, 1).float()
    return F.cross_entropy(flat, labels.flatten(), ignore_index=pad, label_smoothing=smoothing, reduction=reduction)
