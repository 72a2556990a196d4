"""A plain Transformer is one config away: it computes what torch.nn's computes, trains, is counted and imported."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from lite_transformer.checkpoint import load_weights, unique_weights
from lite_transformer.config import ModelConfig, StackConfig, plain_stack
from lite_transformer.fairseq import config_from_args, rename_weights
from lite_transformer.model import LiteTransformer
from lite_transformer.presets import preset
from lite_transformer.profile import profile
from reference_models import tiny_config, tiny_model
from tiny_models import plain_config

# Ours, and the plain Transformers with its Mult-Adds and with its parameters.
COUNTERPARTS = {
    "wmt-en-fr-200": ("vanilla-90m", "vanilla-4m"),
    "wmt-en-fr-408": ("vanilla-360m", "vanilla-15m"),
    "wmt-en-fr-496": ("vanilla-527m", "vanilla-21m"),
}


def torch_layer(model: LiteTransformer, side: str) -> nn.Module:
    """torch.nn's own first layer of an encoder or a decoder, with our weights."""
    stack = model.config.encoder if side == "encoder" else model.config.decoder
    kind = nn.TransformerEncoderLayer if side == "encoder" else nn.TransformerDecoderLayer
    assert stack is not None
    theirs = kind(
        model.config.width,
        stack.attention_heads,
        stack.ffn_width,
        dropout=0.0,
        batch_first=True,
        norm_first=model.config.norm == "pre",
    )
    prefix = f"{side}.layers.0."
    ours = {n.removeprefix(prefix): w for n, w in model.state_dict().items() if n.startswith(prefix)}
    names = {"self_attn": "mixer.attention", "multihead_attn": "cross"}
    state = {}
    for their_name, name in names.items():
        if f"{name}.query.weight" in ours:
            for part in ("weight", "bias"):
                state[f"{their_name}.in_proj_{part}"] = torch.cat(
                    [ours[f"{name}.{p}.{part}"] for p in ("query", "key", "value")]
                )
                state[f"{their_name}.out_proj.{part}"] = ours[f"{name}.output.{part}"]
    norms = ["mixer_residual", *(["cross_residual"] if side == "decoder" else []), "ffn_residual"]
    for part in ("weight", "bias"):
        state |= {f"norm{i}.{part}": ours[f"{name}.norm.{part}"] for i, name in enumerate(norms, 1)}
        state |= {f"linear1.{part}": ours[f"ffn.expand.{part}"], f"linear2.{part}": ours[f"ffn.contract.{part}"]}
    theirs.load_state_dict(state)
    # In training mode torch takes its plain path, not a fused one; there is no dropout.
    return theirs.train()


@torch.no_grad()
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_plain_layer_is_torchs(norm: str) -> None:
    model = tiny_model(plain_config(norm))
    assert model.encoder is not None
    x, memory = torch.randn(2, 6, 16), torch.randn(2, 5, 16)
    keep = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    bias = torch.where(keep, 0.0, -1e4)[:, None, None, :]
    ours: Tensor = model.encoder.layers[0](x, keep, bias)
    theirs = torch_layer(model, "encoder")(x, src_key_padding_mask=~keep)
    torch.testing.assert_close(ours[keep], theirs[keep], atol=2e-6, rtol=1e-5)
    layer = model.decoder.layers[0]
    ours, _ = layer(x, None, layer.cross_memory(memory), None)
    causal = nn.Transformer.generate_square_subsequent_mask(6)
    torch.testing.assert_close(ours, torch_layer(model, "decoder")(x, memory, tgt_mask=causal), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", COUNTERPARTS)
def test_counterparts_match_within_two_percent(name: str) -> None:
    """At our vocabulary; the paper's Mult-Adds do not depend on it."""
    config = preset(name).config
    lite = profile(config.model_copy(update={"source_vocab": 8000, "target_vocab": 8000}))
    by_cost, by_size = map(preset, COUNTERPARTS[name])
    assert profile(by_cost.config).mult_adds == pytest.approx(profile(name).mult_adds, rel=0.02)
    assert profile(by_cost.config).body_parameters == pytest.approx(lite.body_parameters, rel=0.02)
    assert profile(by_size.config).parameters == pytest.approx(lite.parameters, rel=0.02)
    for plain in (by_cost.config, by_size.config):
        assert not any(isinstance(module, nn.Conv1d) or "convolution" in n for n, module in _on_meta(plain))
        same = ("norm", "final_norm", "embeddings", "dropout", "attention_dropout", "max_source", "max_target")
        assert [getattr(plain, field) for field in same] == [getattr(config, field) for field in same]
        assert plain.encoder is not None and config.encoder is not None
        assert (plain.encoder.layers, plain.decoder.layers) == (config.encoder.layers, config.decoder.layers)
        assert 3.5 < plain.encoder.ffn_width / plain.width < 4.5


def _on_meta(config: ModelConfig) -> list[tuple[str, nn.Module]]:
    with torch.device("meta"):
        return list(LiteTransformer(config).named_modules())


def test_the_base_model_is_as_large_as_it_is_known() -> None:
    """44.1M parameters without tables (12 layers of d = 512), 1.34G Mult-Adds."""
    counted = profile("vanilla-base")
    assert counted.body_parameters == pytest.approx(44.1e6, rel=0.01)
    assert counted.mult_adds == pytest.approx(1.34e9, rel=0.01)


def test_depth_or_kernels() -> None:
    stack = {"attention_width": 8, "attention_heads": 2, "ffn_width": 16}
    for wrong in ({}, {"kernels": (3, 5), "depth": 2}, {"depth": 0}):
        with pytest.raises(ValidationError, match=r"give kernels, one a layer, or the depth|greater than 0"):
            StackConfig(**stack, **wrong)
    with pytest.raises(ValidationError, match="encoder: 8 channels convolve: give their kernels"):
        ModelConfig(
            width=16,
            source_vocab=40,
            target_vocab=40,
            encoder=StackConfig(**stack, depth=2),
            decoder=StackConfig(**stack, kernels=(3,), cross_heads=2),
        )
    assert plain_stack(3, 16, 2, 64).layers == 3


def test_configs_stored_before_depth_was_known_load_unchanged() -> None:
    config = tiny_config()
    old = config.model_dump(mode="json")
    for side in ("encoder", "decoder"):
        assert old[side].pop("depth") is None
    assert ModelConfig.model_validate(old) == config
    # Then a plain Transformer was written with kernels that nothing used.
    old["encoder"] = {**old["encoder"], "attention_width": 16}
    loaded = ModelConfig.model_validate(old)
    assert loaded.encoder is not None and loaded.encoder.layers == 2


@torch.no_grad()
def test_fairseqs_plain_transformer_is_imported() -> None:
    model = tiny_model(plain_config("post"))
    theirs = {}
    for name, tensor in model.state_dict().items():
        for ours, their_name in (
            ("mixer.attention", "self_attn"),
            ("mixer_residual.norm", "self_attn_layer_norm"),
            ("cross_residual.norm", "encoder_attn_layer_norm"),
            ("ffn_residual.norm", "final_layer_norm"),
            ("ffn.expand", "fc1"),
            ("ffn.contract", "fc2"),
            (".cross.", ".encoder_attn."),
            (".query.", ".q_proj."),
            (".key.", ".k_proj."),
            (".value.", ".v_proj."),
            (".output.", ".out_proj."),
            ("embedding", "embed_tokens"),
        ):
            name = name.replace(ours, their_name)
        if name != "decoder.projection.weight":
            theirs[name] = tensor
    args = {"share_all_embeddings": True, "max_source_positions": 64, "max_target_positions": 48, "dropout": 0.1}
    for side in ("encoder", "decoder"):
        sizes = {"embed_dim": 16, "layers": 2, "attention_heads": 2, "ffn_embed_dim": 40}
        args |= {f"{side}_{key}": value for key, value in sizes.items()}
    config = config_from_args(args, theirs)
    assert config == model.config.model_copy(update={"padding": "legacy"})
    again = LiteTransformer(config).eval()
    load_weights(again, rename_weights(theirs), "theirs")
    assert unique_weights(again).keys() == unique_weights(model).keys()
    source, target = torch.tensor([[5, 6, 7, 2]]), torch.tensor([[2, 8, 9]])
    assert torch.equal(again(source, target), model(source, target))
