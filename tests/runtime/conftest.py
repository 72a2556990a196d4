"""Small real models: nothing here is faked, only narrow."""

from __future__ import annotations

from pathlib import Path

import pytest
from lite_export.bundle_writer import write_bundle
from lite_export.loading import REPLACEMENTS, shipped_model
from lite_export.torch_session import TorchSession
from lite_runtime.manifest import TokenIds
from lite_runtime.tokenizer import SentencePieceTokenizer
from random_models import tiny_model
from tiny_models import tiny_config, write_tiny_folder

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


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with lightweight convolution."""
    return write_tiny_folder(tmp_path_factory.mktemp("tiny") / "model", tiny_config())


@pytest.fixture(scope="session")
def tiny_bundle(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle exported from ``tiny_folder``. Read only: tests that change one copy it first."""
    target = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(tiny_folder, target)
    return target
