"""The PyTorch session a bundle is compared with, proven to hold the weights it was exported from."""

from __future__ import annotations

from pathlib import Path

from lite_export.torch_session import TorchSession
from lite_runtime.bundle import Bundle, sha256_of
from lite_transformer.checkpoint import WEIGHTS, CheckpointError, load_model


def reference_session(bundle: Bundle, model_folder: Path) -> TorchSession:
    """The bundle's model in PyTorch.

    Raises:
        CheckpointError: the folder cannot be read, or holds other weights than the bundle.
    """
    model = load_model(model_folder)
    if sha256_of(model_folder / WEIGHTS) != bundle.manifest.weights_sha256:
        raise CheckpointError(
            f"{bundle.folder} was exported from other weights than {model_folder}:"
            " name its model folder with --model, or compare with --recorded"
        )
    return TorchSession(model)
