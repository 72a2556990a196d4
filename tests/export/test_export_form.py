"""The export form computes what the reference computes, for every kind of model and in both flavours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lite_export.flavours import Flavour, Growing, Slots
from lite_export.graphs import EncodeGraph, StepGraph, state_specs
from lite_export.torch_session import TorchSession
from lite_transformer.config import ModelConfig, StackConfig
from lite_transformer.model import LiteTransformer
from reference_models import Golden
from tiny_models import lively_model, plain_config, tiny_config

STEPS = 9


def attention_only() -> ModelConfig:
    """No channel convolves, though there are kernels: configs stored before ``depth`` have them."""
    config = tiny_config()
    assert config.encoder is not None
    whole = {"attention_width": config.width}
    stacks = [StackConfig(**{**s.model_dump(), **whole}) for s in (config.encoder, config.decoder)]
    return config.model_copy(update={"encoder": stacks[0], "decoder": stacks[1]})


CONFIGS = {
    "lightweight pre": tiny_config("lightweight", "pre"),
    "lightweight post": tiny_config("lightweight", "post"),
    "dynamic pre": tiny_config("dynamic", "pre"),
    "dynamic post": tiny_config("dynamic", "post"),
    "untied": tiny_config().model_copy(update={"embeddings": "untied"}),
    "legacy padding": tiny_config().model_copy(update={"padding": "legacy"}),
    "attention only": attention_only(),
    "plain pre": plain_config("pre"),
    "plain post": plain_config("post"),
}


def sentences(rows: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Source ids, padded where rows differ, and tokens to feed."""
    rng = np.random.default_rng(rows)
    source = rng.integers(4, vocabulary, (rows, 11))
    source[1:, 7:] = 1
    return source, rng.integers(4, vocabulary, (STEPS, rows))


@torch.inference_mode()
def compare(model: LiteTransformer, flavour: Flavour, rows: int) -> None:
    """Every output of a whole decode: states, layers and logits."""
    reference, specs = TorchSession(model), state_specs(model.config)
    encode, step = EncodeGraph(model, flavour), StepGraph(model, flavour)
    source, fed = sentences(rows, min(model.config.source_vocab, model.config.target_vocab))
    mask = source != 1
    expected = reference.encode(source, mask)
    fixed = [s.name for s in specs if s.initial is None]
    outputs = encode(torch.from_numpy(source), torch.from_numpy(mask))
    layers = list(reference.layers.values())
    for name, actual, wanted in zip(
        [*fixed, *reference.layers], outputs, [*(expected[n] for n in fixed), *layers], strict=True
    ):
        close(actual, wanted, flavour, f"encode {name}")
    state = start(model.config, expected, outputs[: len(fixed)], flavour)
    changing = [s.name for s in specs if s.output]
    for position, tokens in enumerate(fed):
        logits, *rest = step(torch.from_numpy(tokens), torch.tensor([position]), *state)
        wanted_logits, expected = reference.step(tokens, position, expected)
        close(logits, wanted_logits, Growing(), f"step {position} logits")
        for name, actual in zip(changing, rest, strict=False):
            if name.startswith("self_"):
                actual = actual[..., : position + 1, :]
            close(actual, expected[name], flavour, f"step {position} {name}")
        for name, actual in zip(reference.layers, rest[len(changing) :], strict=True):
            close(actual, reference.layers[name], Growing(), f"step {position} {name}")
        state = [*rest[: len(changing)], *state[len(changing) :]]


def start(
    config: ModelConfig, expected: dict[str, np.ndarray], fixed: tuple[Tensor, ...], flavour: Flavour
) -> list[Tensor]:
    """The state before the first token; slots full of what an earlier sentence might have left."""
    changing = [torch.from_numpy(v) for n, v in expected.items() if n.startswith(("self_", "conv_"))]
    if isinstance(flavour, Slots):
        full = [
            t.new_full((t.shape[1], flavour.slots, t.shape[3]) if t.dim() == 4 else t.shape[1:], 7.0) for t in changing
        ]
        return [*full, *fixed]
    return [*changing, *fixed]


def close(actual: Tensor, wanted: np.ndarray, flavour: Flavour, what: str) -> None:
    expected = torch.from_numpy(np.ascontiguousarray(wanted))
    torch.testing.assert_close(
        actual, expected if flavour.batched else expected[0], atol=2e-5, rtol=1e-5, msg=lambda m: f"{what}: {m}"
    )


@pytest.mark.parametrize("kind", CONFIGS)
def test_growing_batches_equal_the_reference(kind: str) -> None:
    compare(lively_model(CONFIGS[kind]), Growing(), rows=3)


@pytest.mark.parametrize("kind", CONFIGS)
def test_slots_equal_the_reference_whatever_they_held(kind: str) -> None:
    compare(lively_model(CONFIGS[kind]), Slots(12), rows=1)


def test_trained_models_of_the_original(golden: Golden) -> None:
    for flavour, rows in ((Growing(), 3), (Slots(STEPS), 1)):
        compare(golden.model, flavour, rows)
