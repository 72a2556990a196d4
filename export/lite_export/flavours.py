"""What the backends want done differently in the export form: whether rows are batched, how a cache takes a token.

Shapes: N is the batch where ``batched``, else the axis is absent; H heads, D channels a head, t cached tokens, K taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lite_transformer.attention import MASKED


class Clock(NamedTuple):
    """What a flavour derives from the position, once a step; all None where it needs nothing.

    Shapes: ``past`` and ``present`` (T, 1), 1 at the slots before the position and at it; ``bias`` (1, 1, T), added
    to the scores of self-attention; ``started`` (1,), 0 at the first token of a sentence.
    """

    past: Tensor | None = None
    present: Tensor | None = None
    bias: Tensor | None = None
    started: Tensor | None = None


@runtime_checkable
class Flavour(Protocol):
    """What differs between backends."""

    batched: bool

    def clock(self, position: Int[Tensor, " 1"]) -> Clock:
        """What the methods below need to know of the position."""
        ...

    def parts(self, x: Tensor, sizes: Sequence[int], axis: int) -> Sequence[Tensor]:
        """Cut ``x`` along ``axis``."""
        ...

    def append(self, cache: Tensor, new: Tensor, now: Clock) -> Tensor:
        """The cache (*N, H, t, D) that includes ``new`` (*N, H, 1, D)."""
        ...

    def self_bias(self, now: Clock) -> Tensor | None:
        """Added to the scores of self-attention: hides slots that hold no token yet."""
        ...

    def window(self, window: Tensor, now: Clock) -> Tensor:
        """The convolution's window (*N, K - 1, C) as a step may read it."""
        ...


class Growing:
    """Batched rows; a cache is as long as the tokens so far. For runtimes that allocate as they go: ONNX Runtime."""

    batched = True

    def clock(self, position: Int[Tensor, " 1"]) -> Clock:
        """Nothing depends on the position."""
        return Clock()

    def parts(self, x: Tensor, sizes: Sequence[int], axis: int) -> Sequence[Tensor]:
        """One Split node."""
        return x.split(list(sizes), axis)

    def append(
        self, cache: Float[Tensor, "N H t D"], new: Float[Tensor, "N H 1 D"], now: Clock
    ) -> Float[Tensor, "N H t+1 D"]:
        """Concatenate."""
        return torch.cat([cache, new], dim=-2)

    def self_bias(self, now: Clock) -> None:
        """Every cached token lies before the new one."""
        return None

    def window(self, window: Tensor, now: Clock) -> Tensor:
        """The caller hands in zeros at the start."""
        return window


class Slots:
    """One row; a cache has a fixed number of slots, and all is arithmetic that mobile delegates take over.

    Slots at and after the position are erased at every step, and the window at the first: whatever a cache holds from
    an earlier sentence has no effect. So a runtime may keep the caches inside (mutable buffers, Core ML states).
    """

    batched = False

    def __init__(self, slots: int) -> None:
        self.slots = slots
        # Made here, once: a step would else count them out each time.
        self.numbers = torch.arange(slots, dtype=torch.float32)[:, None]

    def clock(self, position: Int[Tensor, " 1"]) -> Clock:
        """Masks by subtraction and clamping: comparisons are not delegated. Exact in float16 up to 2048 slots."""
        here = position.to(torch.float32)
        past = (here - self.numbers).clamp(0.0, 1.0)
        future = (self.numbers - here).clamp(0.0, 1.0)
        present = 1.0 - past - future
        return Clock(past, present, (future * MASKED).view(1, 1, self.slots), here.clamp(0.0, 1.0))

    def parts(self, x: Tensor, sizes: Sequence[int], axis: int) -> Sequence[Tensor]:
        """Slices: XNNPACK takes over those, not splits."""
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        return [x.narrow(axis, start, size) for start, size in zip(starts, sizes, strict=True)]

    def append(self, cache: Float[Tensor, "H t D"], new: Float[Tensor, "H 1 D"], now: Clock) -> Float[Tensor, "H t D"]:
        """Write into the slot of the position, and clear those after it."""
        assert now.past is not None and now.present is not None
        return cache * now.past + new * now.present

    def self_bias(self, now: Clock) -> Tensor | None:
        """Hide empty slots."""
        return now.bias

    def window(self, window: Tensor, now: Clock) -> Tensor:
        """Zeros at the first token."""
        assert now.started is not None
        return window * now.started
