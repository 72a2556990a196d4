"""Loss and speed between two reports; losses stay on the device until then, so that no update waits for it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lite_transformer.layers import DecoderLayer
from lite_transformer.model import LiteTransformer

# Dense bfloat16 operations a second, from the makers' data sheets, by a part of the device's name; the first that
# fits counts. A card not listed gets no utilisation.
PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
}


@dataclass(frozen=True)
class Reading:
    """Means since the last reading: ``loss`` over updates, ``norm`` of the last one's gradient.

    ``utilisation`` is the share of the device's peak that the linears alone took, 0 to 1; None where no peak is known.
    """

    loss: float
    norm: float
    seconds: float
    tokens_per_second: float
    utilisation: float | None


class Meter:
    """Collects updates, and reads them off.

    Args:
        peak: floating-point operations a second that the device can do at best; None where unknown.
    """

    def __init__(self, model: LiteTransformer, peak: float | None) -> None:
        self.source_cost, self.target_cost = training_flops(model)
        self.peak = peak
        self.restart()

    def restart(self) -> None:
        """Forget what was collected, and start the clock: what came before was no training."""
        self._losses: list[Tensor] = []
        self._norm: Tensor | None = None
        self._targets, self._flops = 0, 0
        self._started = time.monotonic()

    def add(self, loss: Tensor, norm: Tensor, source_tokens: int, target_tokens: int) -> None:
        """Collect an update; both tensors may still be on their way."""
        self._losses.append(loss.detach())
        self._norm = norm
        self._targets += target_tokens
        self._flops += self.source_cost * source_tokens + self.target_cost * target_tokens

    def read(self) -> Reading:
        """What was collected since the last reading. Waits for the device, so that the time is true."""
        assert self._norm is not None
        loss, norm = torch.stack(self._losses).mean().item(), self._norm.item()
        seconds = time.monotonic() - self._started
        utilisation = self._flops / seconds / self.peak if self.peak else None
        reading = Reading(loss, norm, seconds, self._targets / seconds, utilisation)
        self.restart()
        return reading


def peak_flops(device: torch.device) -> float | None:
    """Peak of this device in bfloat16, where it is known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def training_flops(model: LiteTransformer) -> tuple[int, int]:
    """Operations that training spends on a source token and on a target token, in linears alone.

    Six a weight: a product and a sum in the forward pass, twice that in the backward pass (Kaplan et al. 2020,
    section 2.1). Attention's products and the taps are left out, so that a utilisation is never flattered.
    """
    crosses = [layer.cross for layer in model.decoder.layers if isinstance(layer, DecoderLayer) and layer.cross]
    memory = sum(_weights(cross.key) + _weights(cross.value) for cross in crosses)
    encoder = _weights(model.encoder) if model.encoder is not None else 0
    return 6 * (encoder + memory), 6 * (_weights(model.decoder) - memory)


def _weights(module: nn.Module) -> int:
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))
