"""Models by name: the paper's, with the authors' released settings, and our own for the phone."""

from __future__ import annotations

from dataclasses import dataclass

from lite_transformer.config import AdaptiveConfig, ModelConfig, StackConfig, plain_stack

PAPER_KERNELS = (3, 7, 15, 31, 31, 31)


@dataclass(frozen=True)
class Preset:
    """A config, and the lengths at which the paper counts its Mult-Adds."""

    config: ModelConfig
    source_length: int = 30
    target_length: int = 30


def preset(name: str) -> Preset:
    """The preset called ``name``.

    Raises:
        KeyError: with the list of names, where there is none such.
    """
    if name not in PRESETS:
        raise KeyError(f"no preset {name!r}; there are: {', '.join(PRESETS)}")
    return PRESETS[name]


def _wmt(width: int, vocab: int, dropout: float, weight_dropout: float) -> ModelConfig:
    stack = StackConfig(
        kernels=PAPER_KERNELS,
        attention_width=width // 2,
        attention_heads=4,
        ffn_width=width,
        convolution="dynamic",
        glu=True,
    )
    return ModelConfig(
        width=width,
        source_vocab=vocab,
        target_vocab=vocab,
        encoder=stack,
        decoder=stack.model_copy(update={"cross_heads": 8}),
        dropout=dropout,
        attention_dropout=weight_dropout,
        weight_dropout=weight_dropout,
    )


def _iwslt(width: int) -> ModelConfig:
    stack = StackConfig(
        kernels=PAPER_KERNELS,
        attention_width=width // 2,
        attention_heads=4,
        ffn_width=width,
        convolution="lightweight",
        glu=False,
    )
    return ModelConfig(
        width=width,
        source_vocab=8848,
        target_vocab=6632,
        encoder=stack,
        decoder=stack.model_copy(update={"cross_heads": 4}),
        embeddings="untied",
        dropout=0.2,
        weight_dropout=0.1,
    )


def _wikitext() -> ModelConfig:
    return ModelConfig(
        width=896,
        source_vocab=0,
        target_vocab=267744,
        encoder=None,
        decoder=StackConfig(
            kernels=(15,) * 2 + (31,) * 4 + (63,) * 6,
            attention_width=448,
            attention_heads=4,
            ffn_width=896,
            convolution="dynamic",
            glu=True,
        ),
        embeddings="tied",
        norm="pre",
        adaptive=AdaptiveConfig(cutoffs=(20000, 60000)),
        max_target=3072,
    )


def phone(vocab: int = 8000, width: int = 256) -> ModelConfig:
    """Our preset for phones: a deep encoder that runs once, a shallow decoder that runs every token.

    256 is a multiple of 64, as int8 kernels want it. Lightweight kernels fold to constants at
    export, and pre-norm trains in few updates.
    """
    encoder = StackConfig(
        kernels=PAPER_KERNELS,
        attention_width=width // 2,
        attention_heads=4,
        ffn_width=2 * width,
        convolution="lightweight",
        convolution_heads=8,
        glu=True,
    )
    return ModelConfig(
        width=width,
        source_vocab=vocab,
        target_vocab=vocab,
        encoder=encoder,
        decoder=encoder.model_copy(update={"kernels": (15, 31), "cross_heads": 4}),
        norm="pre",
        final_norm=True,
        dropout=0.1,
        max_source=256,
        max_target=256,
    )


def vanilla(width: int, ffn_width: int, heads: int, dropout: float, attention_dropout: float) -> ModelConfig:
    """A plain Transformer of 6 and 6 layers, scaled as the paper scales its baseline: all widths together.

    Equal to a ``wmt-en-fr`` model: depth, post-norm, ReLU, positions, dropouts, one table for both languages and the
    output. The feed-forward network is about four times as wide as the model (Vaswani et al. 2017), rounded so that
    Mult-Adds, or parameters, match; Lite Transformer's is as wide as the model. The vocabulary is ours, of 8k.
    """
    return ModelConfig(
        width=width,
        source_vocab=8000,
        target_vocab=8000,
        encoder=plain_stack(6, width, heads, ffn_width),
        decoder=plain_stack(6, width, heads, ffn_width, cross_heads=heads),
        dropout=dropout,
        attention_dropout=attention_dropout,
    )


PRESETS: dict[str, Preset] = {
    "phone": Preset(phone()),
    # Half of its bytes: for each direction one, where "phone" would serve both.
    "phone-half": Preset(phone(width=160)),
    "wmt-en-fr-200": Preset(_wmt(200, 44512, 0.04, 0.03)),
    "wmt-en-fr-408": Preset(_wmt(408, 44512, 0.08, 0.07)),
    "wmt-en-fr-496": Preset(_wmt(496, 44512, 0.1, 0.08)),
    "wmt-en-de-200": Preset(_wmt(200, 32768, 0.04, 0.03)),
    "wmt-en-de-408": Preset(_wmt(408, 32768, 0.08, 0.06)),
    "wmt-en-de-496": Preset(_wmt(496, 32768, 0.1, 0.08)),
    "iwslt-de-en-160": Preset(_iwslt(160)),
    "iwslt-de-en-240": Preset(_iwslt(240)),
    "iwslt-de-en-320": Preset(_iwslt(320)),
    "cnn-dm-496": Preset(_wmt(496, 30000, 0.15, 0.1), target_length=60),
    "wikitext-103-896": Preset(_wikitext()),
    # Plain Transformers with the Mult-Adds of wmt-en-fr-200, -408 and -496; parameters but for the tables match too.
    "vanilla-90m": Preset(vanilla(128, 544, 4, 0.04, 0.03)),
    "vanilla-360m": Preset(vanilla(256, 1136, 8, 0.08, 0.07)),
    "vanilla-527m": Preset(vanilla(320, 1280, 8, 0.1, 0.08)),
    # With all of their parameters at 8k words, tables included: Mult-Adds are then up to a sixth more.
    "vanilla-4m": Preset(vanilla(144, 528, 4, 0.04, 0.03)),
    "vanilla-15m": Preset(vanilla(272, 1136, 8, 0.08, 0.07)),
    "vanilla-21m": Preset(vanilla(336, 1312, 8, 0.1, 0.08)),
    # A teacher to distil from: the base model of Vaswani et al. 2017.
    "vanilla-base": Preset(vanilla(512, 2048, 8, 0.1, 0.1)),
}
