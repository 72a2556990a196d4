"""The authors' fairseq checkpoints under our names: config from their arguments, weights from their keys.

Source of the layout: mit-han-lab/lite-transformer, fairseq 0.8.0 (WMT, CNN-DM, IWSLT and language-model archs).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lite_transformer.config import AdaptiveConfig, ModelConfig, StackConfig, Tying, plain_stack

# fairseq name -> ours, inside a layer.
_RENAMED = {
    "self_attn.branches.0": "mixer.attention",
    "self_attn.branches.1.linear1": "mixer.convolution.input",
    "self_attn.branches.1.linear2": "mixer.convolution.output",
    "self_attn.branches.1.weight_linear": "mixer.convolution.predict",
    "self_attn.branches.1.weight": "mixer.convolution.taps",
    "self_attn": "mixer.attention",
    "self_attn_layer_norm": "mixer_residual.norm",
    "encoder_attn_layer_norm": "cross_residual.norm",
    "encoder_attn": "cross",
    "final_layer_norm": "ffn_residual.norm",
    "fc1": "ffn.expand",
    "fc2": "ffn.contract",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "output",
}
_LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(.+)")
# Bookkeeping buffers of fairseq, and copies of tied weights.
_IGNORED = re.compile(
    r".*(\.version|_float_tensor|embed_positions\.weights)$|decoder\.adaptive_softmax\.(?!head\.class_proj).*"
)


class UnsupportedCheckpoint(ValueError):
    """The checkpoint is readable but is not a Lite Transformer this project can express."""


def config_from_args(args: Mapping[str, Any], weights: Mapping[str, Tensor]) -> ModelConfig:
    """Model config of a fairseq run.

    Args:
        args: the run's arguments (``vars`` of its Namespace), with or without the ``decoder_`` twins.
        weights: the checkpoint's state dict; vocabulary sizes and tying are read from it, not from ``args``.

    Raises:
        UnsupportedCheckpoint: an argument asks for something outside this architecture.
    """
    if "decoder_embed_dim" not in args or not any(re.search(r"^decoder\.embed_tokens\.", name) for name in weights):
        raise UnsupportedCheckpoint("it has no decoder_embed_dim or embed_tokens: no fairseq model with a decoder")
    for key, allowed in (("encoder_learned_pos", False), ("decoder_learned_pos", False), ("activation_fn", "relu"),
                         ("conv_linear", True), ("weight_softmax", True)):  # fmt: skip
        if args.get(key, allowed) != allowed:
            raise UnsupportedCheckpoint(f"{key}={args[key]!r} is not supported (only {allowed!r})")
    has_encoder = any(name.startswith("encoder.") for name in weights)
    width = int(args["decoder_embed_dim"])
    pre = _flag(args, "decoder_normalize_before")
    adaptive = None
    if _flag(args, "adaptive_input"):
        adaptive = AdaptiveConfig(
            cutoffs=tuple(int(c) for c in str(args["adaptive_input_cutoff"]).split(",")),
            factor=int(args.get("adaptive_input_factor", 4)),
        )
        target = sum(w.shape[0] for n, w in weights.items() if re.search(r"embed_tokens\.embeddings\.\d+\.0\.", n))
    else:
        target = weights["decoder.embed_tokens.weight"].shape[0]
    return ModelConfig(
        width=width,
        source_vocab=weights["encoder.embed_tokens.weight"].shape[0] if has_encoder else 0,
        target_vocab=target,
        encoder=_stack(args, "encoder", width, cross=False) if has_encoder else None,
        decoder=_stack(args, "decoder", width, cross=has_encoder),
        embeddings=_tying(args, weights, has_encoder),
        norm="pre" if pre else "post",
        final_norm=pre and not _flag(args, "no_decoder_final_norm"),
        padding="legacy",
        adaptive=adaptive,
        dropout=float(args.get("dropout", 0.1)),
        attention_dropout=float(args.get("attention_dropout", 0.0)),
        weight_dropout=float(args.get("weight_dropout", 0.0)),
        max_source=int(args.get("max_source_positions", 1024)),
        max_target=int(args.get("max_target_positions", 1024)),
    )


def rename_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from fairseq's. Tied copies are dropped; (H, 1, K) kernels become (H, K)."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if _IGNORED.match(name):
            continue
        ours = _rename(name)
        if ours.endswith("convolution.taps") and tensor.dim() == 3:
            tensor = tensor.squeeze(1)
        renamed[ours] = tensor.to(torch.float32)
    return renamed


def _rename(name: str) -> str:
    if layer := _LAYER.fullmatch(name):
        side, index, rest = layer.groups()
        for theirs, ours in _RENAMED.items():
            rest = re.sub(rf"(^|\.){re.escape(theirs)}(\.|$)", rf"\g<1>{ours}\g<2>", rest, count=1)
        return f"{side}.layers.{index}.{rest}"
    if name == "decoder.embed_out":
        return "decoder.projection.weight"
    if name == "decoder.adaptive_softmax.head.class_proj.weight":
        return "decoder.projection.classes.weight"
    if band := re.fullmatch(r"decoder\.embed_tokens\.embeddings\.(\d+)\.([01])\.weight", name):
        return f"decoder.embedding.{('bands', 'projections')[int(band[2])]}.{band[1]}.weight"
    return name.replace("embed_tokens", "embedding").replace("layer_norm", "norm")


def _flag(args: Mapping[str, Any], key: str) -> bool:
    return str(args.get(key, False)).lower() == "true"


def _tying(args: Mapping[str, Any], weights: Mapping[str, Tensor], has_encoder: bool) -> Tying:
    if "decoder.embed_out" in weights:
        return "untied"
    return "shared" if has_encoder and _flag(args, "share_all_embeddings") else "tied"


def _stack(args: Mapping[str, Any], side: str, width: int, cross: bool) -> StackConfig:
    if int(args.get(f"{side}_embed_dim", width)) != width:
        raise UnsupportedCheckpoint(f"{side}_embed_dim differs from decoder_embed_dim {width}")
    layers = int(args[f"{side}_layers"])
    cross_heads = int(args["decoder_attention_heads"]) if cross else 0
    ffn_width = int(args[f"{side}_ffn_embed_dim"])
    if args.get(f"{side}_branch_type") is None:
        # A plain Transformer of fairseq: every channel attends.
        heads = int(args[f"{side}_attention_heads"])
        return plain_stack(layers, width, heads, ffn_width, cross_heads)
    attention, convolution = _branches(args[f"{side}_branch_type"], side)
    # The command line's default list has a seventh entry that fairseq truncates.
    kernels = [int(k) for k in args[f"{side}_kernel_size_list"]][:layers]
    if len(kernels) < layers:
        raise UnsupportedCheckpoint(f"{side}_kernel_size_list has {len(kernels)} entries for {layers} layers")
    return StackConfig(
        kernels=tuple(kernels),
        attention_width=int(attention[2]),
        attention_heads=int(attention[3]),
        ffn_width=ffn_width,
        convolution="dynamic" if convolution[0] == "dynamic" else "lightweight",
        convolution_heads=int(convolution[3]),
        # fairseq gives its lightweight branch no GLU whatever the flag says.
        glu=convolution[0] == "dynamic" and _flag(args, f"{side}_glu"),
        cross_heads=cross_heads,
    )


def _branches(spec: Any, side: str) -> tuple[list[str], list[str]]:
    """Parse ``["attn:1:248:4", "dynamic:default:248:4"]`` (kind:kernel:channels:heads)."""
    parts = [str(branch).split(":") for branch in spec]
    kinds = [p[0] for p in parts]
    if len(parts) != 2 or kinds[0] != "attn" or kinds[1] not in ("lightweight", "dynamic"):
        raise UnsupportedCheckpoint(f"{side}_branch_type {spec!r}: expected one attn, then one convolution branch")
    return parts[0], parts[1]
