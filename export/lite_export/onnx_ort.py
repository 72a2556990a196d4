"""ONNX files as ``.ort``, for ONNX Runtime's reduced mobile builds, and the list of operators such a build needs.

1. make initializers of equal bytes one: an ``.ort`` file carries its weights, and would carry each copy
2. let ONNX Runtime save the graph, optimized for any processor, without constant folding, which would make copies
3. list the operators of all files: ``required_operators.config``, for ``build.sh --include_ops_by_config``
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from lite_export.errors import ExportError
from lite_export.onnx_translate import ENCODE, STEP, TRANSLATE, read_graph

REQUIRED_OPERATORS = "required_operators.config"
_OPTIONAL = (TRANSLATE,)


def to_ort(folder: Path) -> list[Path]:
    """Write ``encode.ort``, ``step.ort`` and, where there is a ``translate.onnx``, ``translate.ort`` beside them.

    Each file has all its weights inside, each once; inputs and outputs are those of the ``.onnx`` file. Files of
    fp16 turn their weights to fp32 at every call, as nothing is folded: int8 is smaller and faster.

    Args:
        folder: of an ONNX export, of any precision.

    Returns:
        the files, then ``required_operators.config``.

    Raises:
        ExportError: a graph is missing, or ONNX Runtime is not installed or cannot convert it.
    """
    there = [name for name in (ENCODE, STEP, *_OPTIONAL) if name not in _OPTIONAL or (folder / name).is_file()]
    files = [_convert(folder / name) for name in there]
    return [*files, _list_operators(files, folder / REQUIRED_OPERATORS)]


def _convert(path: Path) -> Path:
    runtime, model = _onnxruntime(), read_graph(path)
    share_bytes(model.graph)
    target = path.with_suffix(".ort")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    # Higher levels fuse for the processor at hand; no slower without, measured.
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    refusals = runtime.capi.onnxruntime_pybind11_state
    try:
        runtime.InferenceSession(
            ir.to_proto(model).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["ConstantFolding"],
        )
    except (
        refusals.Fail,
        refusals.InvalidArgument,
        refusals.InvalidGraph,
        refusals.InvalidProtobuf,
        refusals.NoSuchFile,
        refusals.NotImplemented,
        refusals.RuntimeException,
    ) as error:
        raise ExportError(f"ONNX Runtime cannot convert {path.name}: {error}; export it again") from None
    if not target.is_file():
        raise ExportError(f"ONNX Runtime converted {path.name} without writing {target.name}: update onnxruntime")
    return target


def share_bytes(graph: ir.Graph) -> None:
    """Make weights that differ in shape only one weight and views of it (``Reshape``, which copies nothing)."""
    kept: dict[tuple[ir.DataType, bytes], ir.Value] = {}
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        assert tensor is not None
        if tensor.dtype == ir.DataType.STRING:
            continue
        first = kept.setdefault((tensor.dtype, tensor.tobytes()), value)
        if first is value:
            continue
        value.replace_all_uses_with(first if first.shape == value.shape else _view(graph, first, value))
        graph.initializers.pop(str(value.name))


def _view(graph: ir.Graph, source: ir.Value, like: ir.Value) -> ir.Value:
    assert like.const_value is not None
    name, shape = f"{like.name}.shape", np.array(like.const_value.shape.numpy(), np.int64)
    wanted = ir.Value(name=name, const_value=ir.tensor(shape, name=name))
    graph.register_initializer(wanted)
    node = ir.node("Reshape", [source, wanted])
    node.outputs[0].name = f"{like.name}.view"
    node.outputs[0].type, node.outputs[0].shape = like.type, like.shape
    graph.insert_before(graph[0], node)
    return node.outputs[0]


def _list_operators(files: list[Path], target: Path) -> Path:
    with _quietly():
        from onnxruntime.tools.ort_format_model import create_config_from_models

        create_config_from_models(files, target, enable_type_reduction=False)
    # It names the files it was made from by this machine's paths.
    lines = target.read_text("utf8").splitlines()
    names = [f"# - {file.name}" for file in sorted(files)]
    target.write_text("\n".join([lines[0], *names, *lines[1 + len(files) :]]) + "\n", "utf8")
    return target


@contextmanager
def _quietly() -> Iterator[None]:
    """ONNX Runtime's tools set up logging for the whole process, tell what they do, and leave files open."""
    root = logging.getLogger()
    handlers, disabled = root.handlers[:], root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ExportError("ONNX Runtime is not installed: pip install 'lite-export[onnx]'") from None
    return onnxruntime
