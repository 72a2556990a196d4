"""What a Lite Transformer is made of, as validated, frozen values (stored beside the weights as JSON)."""

from __future__ import annotations

import itertools
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Convolution = Literal["lightweight", "dynamic"]
Tying = Literal["shared", "tied", "untied"]


class Frozen(BaseModel):
    """Base of every config: immutable, and an unknown key is an error rather than a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StackConfig(Frozen):
    """One encoder or decoder stack of Long-Short Range Attention layers (paper, section 4), or of plain ones.

    ``attention_width`` channels attend, the other ``width - attention_width`` convolve, with one of ``kernels`` a
    layer. Where all channels attend, a plain Transformer (Vaswani et al. 2017), ``depth`` counts the layers instead.
    """

    kernels: tuple[int, ...] = ()
    depth: int | None = Field(default=None, gt=0)
    attention_width: int = Field(gt=0)
    attention_heads: int = Field(gt=0)
    ffn_width: int = Field(gt=0)
    convolution: Convolution = "dynamic"
    convolution_heads: int = Field(default=4, gt=0)
    glu: bool = True
    cross_heads: int = Field(default=0, ge=0, description="heads of cross-attention; 0 for none")

    @property
    def layers(self) -> int:
        return self.depth or len(self.kernels)

    @model_validator(mode="after")
    def _one_depth(self) -> StackConfig:
        if bool(self.kernels) == (self.depth is not None):
            raise ValueError("give kernels, one a layer, or the depth of a stack in which nothing convolves")
        return self


def plain_stack(depth: int, width: int, heads: int, ffn_width: int, cross_heads: int = 0) -> StackConfig:
    """A stack of a plain Transformer: every channel attends."""
    return StackConfig(
        depth=depth,
        attention_width=width,
        attention_heads=heads,
        ffn_width=ffn_width,
        cross_heads=cross_heads,
    )


class AdaptiveConfig(Frozen):
    """Adaptive input and softmax (Baevski & Auli 2019): vocabulary bands, each ``factor`` times narrower."""

    cutoffs: tuple[int, ...]
    factor: int = 4


class ModelConfig(Frozen):
    """A whole model. ``encoder`` is None for a language model.

    ``padding="exact"`` zeroes padded frames after the GLU, so padding never changes a result;
    ``"legacy"`` zeroes them before the first linear as the original does, whose bias then leaks
    into neighbouring words.
    """

    width: int = Field(gt=0)
    source_vocab: int = Field(ge=0)
    target_vocab: int = Field(gt=4)
    encoder: StackConfig | None
    decoder: StackConfig
    embeddings: Tying = "shared"
    norm: Literal["pre", "post"] = "post"
    final_norm: bool = False
    padding: Literal["exact", "legacy"] = "exact"
    adaptive: AdaptiveConfig | None = None
    dropout: float = Field(default=0.1, ge=0, lt=1)
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    weight_dropout: float = Field(default=0.0, ge=0, lt=1)
    max_source: int = Field(default=1024, gt=0)
    max_target: int = Field(default=1024, gt=0)
    bos: int = 0
    pad: int = 1
    eos: int = 2
    unk: int = 3

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.width % 2:
            raise ValueError(f"width {self.width} must be even (positions are sine and cosine halves)")
        if self.embeddings == "shared" and self.encoder and self.source_vocab != self.target_vocab:
            raise ValueError("shared embeddings need one vocabulary: source_vocab must equal target_vocab")
        if (self.encoder is not None) != (self.decoder.cross_heads > 0):
            raise ValueError("a decoder has cross_heads if, and only if, the model has an encoder")
        if self.adaptive:
            _check_adaptive(self.adaptive, self)
        for side, stack in (("encoder", self.encoder), ("decoder", self.decoder)):
            if stack is not None:
                _check_stack(side, stack, self.width)
        return self


def _check_adaptive(adaptive: AdaptiveConfig, model: ModelConfig) -> None:
    """Raise ValueError where the bands do not split the vocabulary of a language model."""
    if model.encoder is not None:
        raise ValueError("adaptive embeddings are for language models: encoder must be null")
    bounds = (0, *adaptive.cutoffs, model.target_vocab)
    if any(low >= high for low, high in itertools.pairwise(bounds)):
        raise ValueError(f"adaptive: cutoffs {adaptive.cutoffs} must rise within target_vocab {model.target_vocab}")


def _check_stack(side: str, stack: StackConfig, width: int) -> None:
    """Raise ValueError where heads do not divide their channels."""
    convolved = width - stack.attention_width
    if convolved < 0:
        raise ValueError(f"{side}: attention_width {stack.attention_width} exceeds width {width}")
    if convolved and not stack.kernels:
        raise ValueError(f"{side}: {convolved} channels convolve: give their kernels, one a layer, not depth")
    for what, channels, heads in (
        ("attention_heads", stack.attention_width, stack.attention_heads),
        ("convolution_heads", convolved, stack.convolution_heads),
        ("cross_heads", width, stack.cross_heads or 1),
    ):
        if channels % heads:
            raise ValueError(f"{side}: {what} {heads} does not divide {channels} channels")
    if side == "encoder" and any(k % 2 == 0 for k in stack.kernels):
        raise ValueError(f"encoder: kernels {stack.kernels} must be odd to keep the length")
