"""Small real models: nothing here is faked, only narrow."""

from __future__ import annotations

import pytest
from random_models import tiny_model

from lite_export.loading import REPLACEMENTS, shipped_model
from lite_export.torch_session import TorchSession
from lite_runtime.manifest import TokenIds
from lite_runtime.tokenizer import SentencePieceTokenizer

TOKENS = TokenIds(pad=1, eos=2, unk=3, start=2)


@pytest.fixture(scope="session")
def tokens() -> TokenIds:
    return TOKENS


@pytest.fixture(scope="session")
def tiny_session() -> TorchSession:
    return TorchSession(tiny_model(vocab=24))


@pytest.fixture(scope="session")
def tokenizer() -> SentencePieceTokenizer:
    return SentencePieceTokenizer(shipped_model() / "tokenizer.model", TOKENS, REPLACEMENTS)
