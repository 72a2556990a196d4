"""The short-range branch: lightweight and dynamic convolution (Wu et al. 2019) between two linears."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lite_transformer.config import Convolution


class ConvolutionBranch(nn.Module):
    """``linear (+ GLU) -> depthwise convolution with softmaxed kernels -> linear``.

    Heads share a kernel over ``width / heads`` neighbouring channels. A *lightweight* kernel is a
    parameter; a *dynamic* one is predicted from the frame it is centred on. DropConnect
    (``weight_dropout``) acts on the softmaxed kernel.

    Shapes: B batch, T frames, C channels, K taps, P = K - 1 frames of context, L = T + P frames with it.
    """

    def __init__(
        self,
        width: int,
        kernel: int,
        heads: int,
        kind: Convolution,
        glu: bool,
        causal: bool,
        weight_dropout: float = 0.0,
        legacy_padding: bool = False,
    ) -> None:
        super().__init__()
        self.kernel, self.heads, self.glu, self.causal = kernel, heads, glu, causal
        self.weight_dropout, self.legacy_padding = weight_dropout, legacy_padding
        self.input = nn.Linear(width, 2 * width if glu else width)
        self.output = nn.Linear(width, width)
        self.taps: nn.Parameter | None = None
        self.predict: nn.Linear | None = None
        if kind == "lightweight":
            self.taps = nn.Parameter(torch.empty(heads, kernel))
            nn.init.xavier_uniform_(self.taps)
        else:
            self.predict = nn.Linear(width, heads * kernel, bias=False)
            nn.init.xavier_uniform_(self.predict.weight)
        for linear in (self.input, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        keep: Bool[Tensor, "B T"] | None = None,
        window: Float[Tensor, "B P C"] | None = None,
    ) -> tuple[Float[Tensor, "B T C"], Float[Tensor, "B P C"] | None]:
        """Convolve ``x``.

        Args:
            keep: False where a frame is padding (encoder).
            window: the last K - 1 convolved inputs before ``x`` (causal only); None stands for zeros.

        Returns:
            the branch's output, and the window after ``x`` (None where the branch is not causal).
        """
        frames = self._frames(x, keep)
        padded = self._pad(frames, window)
        mixed = self._lightweight(padded) if self.taps is not None else self._dynamic(frames, padded)
        return self.output(mixed), padded[:, x.shape[1] :] if self.causal else None

    def _frames(self, x: Float[Tensor, "B T C"], keep: Bool[Tensor, "B T"] | None) -> Float[Tensor, "B T C"]:
        mask = None if keep is None else keep.to(x.dtype)[..., None]
        if mask is not None and self.legacy_padding:
            x = x * mask
        frames = self.input(x)
        if self.glu:
            frames = F.glu(frames, dim=-1)
        if mask is not None and not self.legacy_padding:
            frames = frames * mask
        return frames

    def _pad(self, frames: Float[Tensor, "B T C"], window: Float[Tensor, "B P C"] | None) -> Float[Tensor, "B L C"]:
        if not self.causal:
            return F.pad(frames, (0, 0, self.kernel // 2, self.kernel - 1 - self.kernel // 2))
        if window is None:
            return F.pad(frames, (0, 0, self.kernel - 1, 0))
        return torch.cat([window, frames], dim=1)

    def _drop_connect(self, taps: Tensor) -> Tensor:
        return F.dropout(taps, self.weight_dropout, self.training)

    def _lightweight(self, padded: Float[Tensor, "B L C"]) -> Float[Tensor, "B T C"]:
        assert self.taps is not None
        taps = self._drop_connect(self.taps.softmax(-1))
        return self._convolve(taps[None, :, None].expand(-1, -1, padded.shape[1] - self.kernel + 1, -1), padded)

    def _dynamic(self, frames: Float[Tensor, "B T C"], padded: Float[Tensor, "B L C"]) -> Float[Tensor, "B T C"]:
        assert self.predict is not None
        taps = self.predict(frames).unflatten(2, (self.heads, self.kernel))
        return self._convolve(self._drop_connect(taps.softmax(-1)).transpose(1, 2), padded)

    def _convolve(self, taps: Float[Tensor, "#B H T K"], padded: Float[Tensor, "B L C"]) -> Float[Tensor, "B T C"]:
        # One product for all frames: to gather each frame's neighbours first would copy the input K times, and on a CPU
        # a depthwise convolution with its gradient takes more than twice as long (benchmarks/training.py).
        mixed = _band(taps) @ padded.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return mixed.transpose(1, 2).flatten(2)


def _band(taps: Float[Tensor, "#B H T K"]) -> Float[Tensor, "#B H T L"]:
    """The convolution as a matrix: row t is the kernel of frame t, from column t on."""
    time, kernel = taps.shape[2:]
    length = time + kernel - 1
    # Rows are padded to L + 1 and read again as rows of L: each starts one column later than the one before.
    return F.pad(taps, (0, time)).flatten(2)[..., : time * length].unflatten(2, (time, length))
