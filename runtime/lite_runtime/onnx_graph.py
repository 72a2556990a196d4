"""Loading an ONNX file into ONNX Runtime, with errors that name the way out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lite_runtime.bundle import BundleError
from lite_runtime.session import SessionError


def load_graph(path: Path, threads: int | None = None, text: bool = False) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU; ``path`` is an ``.onnx`` or an ``.ort`` file.

    Args:
        threads: of one operator; None leaves it to ONNX Runtime.
        text: with the string operators of onnxruntime-extensions.

    Raises:
        BundleError: a package is not installed, or ONNX Runtime refuses the file.
    """
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    # Warnings of the optimiser are not the user's; errors arrive as exceptions.
    options.log_severity_level = 3
    if text:
        options.register_custom_ops_library(text_operators())
    refusals = runtime.capi.onnxruntime_pybind11_state
    try:
        return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except (
        refusals.Fail,
        refusals.InvalidArgument,
        refusals.InvalidGraph,
        refusals.InvalidProtobuf,
        refusals.NoSuchFile,
        refusals.NotImplemented,
        refusals.RuntimeException,
    ) as error:
        raise BundleError(f"ONNX Runtime cannot load {path.name}: {error}; export the bundle again") from None


def run_graph(session: Any, outputs: Sequence[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of a loaded graph, by name.

    Raises:
        SessionError: ONNX Runtime failed; a damaged or wrongly exported graph.
    """
    try:
        return session.run(outputs, inputs)
    except Exception as error:
        # Asked for only now: a step is short enough for a look-up of names to be seen.
        refusals = _onnxruntime().capi.onnxruntime_pybind11_state
        if isinstance(error, (refusals.Fail, refusals.InvalidArgument, refusals.RuntimeException)):
            raise SessionError(f"ONNX Runtime: {error}") from None
        raise


def text_operators() -> str:
    """Path of the library with onnxruntime-extensions' operators.

    Raises:
        BundleError: it is not installed.
    """
    try:
        from onnxruntime_extensions import get_library_path
    except ModuleNotFoundError:
        raise BundleError("the text graph needs onnxruntime-extensions: pip install onnxruntime-extensions") from None
    return str(get_library_path())


def _onnxruntime() -> Any:
    # Its builds for Linux since 1.31 upload telemetry, unless told otherwise before the first session.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise BundleError("ONNX Runtime is not installed: pip install 'lite-export[onnx]'") from None
    return onnxruntime
