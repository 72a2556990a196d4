"""PyTorch to ONNX: for each precision ``encode.onnx`` and ``step.onnx`` over one shared ``weights.bin``.

1. trace both graphs with torch.export, batch, source and past dynamic: once, it takes far longer than all else
2. refuse graphs whose dynamic axes were frozen on the way
3. undo the folding that stores a tied table twice, once transposed
4. for each precision, rewrite a copy of both graphs (``onnx_quantize``)
5. move every weight to one external file, each content once: the tied table serves both graphs
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import jaxtyping
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn
from torch.export import Dim

from lite_export.errors import ExportError
from lite_export.flavours import Growing
from lite_export.graphs import EncodeGraph, StepGraph, decoder_layer_names, encoder_layer_names, state_specs
from lite_export.onnx_ops import describe
from lite_export.onnx_quantize import PRECISIONS, quantize
from lite_runtime.manifest import Graph, StateTensor
from lite_transformer.config import ModelConfig
from lite_transformer.model import LiteTransformer

OPSET = 20
WEIGHTS = "weights.bin"
# Below this a tensor is a shape or an axis list, which runtimes want inside the graph.
_INLINE_BYTES = 1024
_ALIGNMENT = 64
# Example sizes: two or more, and all different, or torch.export takes them for constants or for each other.
_EXAMPLE = {"batch": 2, "source": 7, "past": 5}


def export_onnx(
    model: LiteTransformer, folder: Path, precisions: Sequence[str] = ("fp32",)
) -> dict[str, tuple[Graph, Graph]]:
    """Write ``PRECISION/encode.onnx``, ``step.onnx`` and ``weights.bin`` into ``folder`` for each precision.

    Returns:
        by precision, the manifest's descriptions of encode and step, with file names relative to ``folder``.

    Raises:
        ExportError: an unknown precision, the model has no encoder, or a dynamic axis came out fixed.
    """
    config = model.config
    unknown = [precision for precision in precisions if precision not in PRECISIONS]
    if unknown:
        raise ExportError(f"no {', '.join(unknown)} for ONNX; choose from {', '.join(PRECISIONS)}")
    if config.encoder is None:
        raise ExportError("a language model has no encoder: only translation models are exported to ONNX so far")
    model = model.eval()
    traced = {"encode": _export_encode(model, config), "step": _export_step(model, config)}
    for graph in traced.values():
        # Node metadata holds the exporting machine's stack traces: half of the file, and nobody's business.
        ClearMetadataAndDocStringPass()(graph)
        _share_transposes(graph.graph)
    return {precision: _write_precision(traced, config, folder, precision) for precision in precisions}


def _write_precision(
    traced: Mapping[str, ir.Model], config: ModelConfig, folder: Path, precision: str
) -> tuple[Graph, Graph]:
    target = folder / precision
    target.mkdir()
    layers = {"encode": encoder_layer_names(config), "step": decoder_layer_names(config)}
    described = {}
    with closing(WeightPool(target / WEIGHTS)) as pool:
        for name, original in traced.items():
            graph = original.clone()
            quantize(graph, precision)
            pool.adopt(graph)
            graph.producer_name, graph.graph.name = "lite-export", name
            ir.save(graph, target / f"{name}.onnx")
            described[name] = describe(graph, f"{precision}/{name}.onnx", layers[name])
    return described["encode"], described["step"]


def _export_encode(model: LiteTransformer, config: ModelConfig) -> ir.Model:
    batch, source = _dimensions(config)["batch"], _dimensions(config)["source"]
    example = (
        torch.full((_EXAMPLE["batch"], _EXAMPLE["source"]), config.unk),
        torch.ones(_EXAMPLE["batch"], _EXAMPLE["source"], dtype=torch.bool),
    )
    return export_graph(
        EncodeGraph(model, Growing()),
        example,
        ["source", "mask"],
        [*(s.name for s in state_specs(config) if s.initial is None), *encoder_layer_names(config)],
        {"source": {0: batch, 1: source}, "mask": {0: batch, 1: source}},
    )


def _export_step(model: LiteTransformer, config: ModelConfig) -> ir.Model:
    specs = state_specs(config)
    dims = _dimensions(config)
    axes = [step_axes(spec) for spec in specs]
    state = tuple(torch.zeros([d if isinstance(d, int) else _EXAMPLE[d] for d in step_shape(spec)]) for spec in specs)
    return export_graph(
        StepGraph(model, Growing()),
        (torch.full((_EXAMPLE["batch"],), config.unk), torch.tensor([_EXAMPLE["past"]]), *state),
        ["tokens", "position", *(s.name for s in specs)],
        ["logits", *(s.output for s in specs if s.output), *decoder_layer_names(config)],
        {
            "tokens": {0: dims["batch"]},
            "position": None,
            "state": tuple({axis: dims[name] for axis, name in axis_names.items()} for axis_names in axes),
        },
    )


def step_shape(spec: StateTensor) -> tuple[int | str, ...]:
    """A state tensor's shape as a step's input: self-attention's time axis is the past."""
    if spec.kind != "self_kv":
        return spec.shape
    return (*spec.shape[:2], "past", *spec.shape[3:])


def step_axes(spec: StateTensor) -> dict[int, str]:
    """Dynamic axes of a state tensor as a step's input."""
    return {axis: name for axis, name in enumerate(step_shape(spec)) if isinstance(name, str)}


def _dimensions(config: ModelConfig) -> dict[str, Dim]:
    return {
        "batch": Dim("batch", min=1, max=4096),
        "source": Dim("source", min=1, max=config.max_source),
        "past": Dim("past", min=0, max=config.max_target - 1),
    }


def export_graph(
    graph: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str], axes: dict[str, object]
) -> ir.Model:
    """One graph as ONNX.

    Args:
        example: arguments to trace with; dynamic sizes two or more, and all different.
        axes: per argument of ``forward``, its dynamic axes.

    Raises:
        ExportError: a dynamic axis came out fixed.
    """
    with _quiet():
        program = torch.onnx.export(
            graph.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=axes,
            verbose=False,
        )
    assert program is not None
    exported = program.model
    _check_axes(exported, inputs, axes)
    return exported


def _check_axes(exported: ir.Model, inputs: list[str], axes: dict[str, object]) -> None:
    """torch.export can freeze an axis at its example size without an error; the file would run one length only."""
    found = {v.name: v.shape for v in exported.graph.inputs if v.shape is not None}
    missing = set(inputs) - set(found)
    if missing:
        raise ExportError(f"the exported graph lost its inputs {', '.join(sorted(missing))}")
    asked: list[object] = []
    for value in axes.values():
        asked.extend(value if isinstance(value, tuple) else [value])
    for name, dynamic in zip(inputs, asked, strict=True):
        shape = found[name]
        for axis in dynamic if isinstance(dynamic, dict) else ():
            if isinstance(shape[axis], int):
                raise ExportError(f"axis {axis} of {name} was frozen at {shape[axis]} during the export")


def _share_transposes(graph: ir.Graph) -> None:
    """Let a weight that is another's transpose be computed from it; runtimes fold it again at load."""
    kept: dict[tuple[tuple[int, ...], bytes], ir.Value] = {}
    for value in list(graph.initializers.values()):
        if value.const_value is None or value.const_value.size * 4 < _INLINE_BYTES or len(value.const_value.shape) != 2:
            continue
        array = value.const_value.numpy()
        source = kept.get((array.shape[::-1], array.T.tobytes()))
        if source is None:
            kept[array.shape, array.tobytes()] = value
            continue
        node = ir.node("Transpose", [source], {"perm": [1, 0]})
        node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
        value.replace_all_uses_with(node.outputs[0])
        graph.initializers.pop(value.name or "")
        graph.insert_before(graph[0], [node])


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's remarks about things that are so on purpose, and shape checks it would specialise on."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx._internal.exporter._registration", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    checking = jaxtyping.config.jaxtyping_disable
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        jaxtyping.config.update("jaxtyping_disable", True)
        with warnings.catch_warnings():
            # Shared dimension names; a pytree deprecation inside torch itself.
            warnings.simplefilter("ignore")
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", checking)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class WeightPool:
    """One external data file for several graphs, holding each distinct tensor once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offsets: dict[bytes, int] = {}
        self.file = path.open("wb")

    def adopt(self, model: ir.Model) -> None:
        """Move a model's weights into the file; what is already there is only referred to."""
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if tensor is None or tensor.nbytes < _INLINE_BYTES:
                continue
            value.const_value = ir.ExternalTensor(
                location=self.path.name,
                offset=self._store(tensor.tobytes()),
                length=tensor.nbytes,
                dtype=tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=name,
                base_dir=self.path.parent,
            )

    def _store(self, data: bytes) -> int:
        key = hashlib.sha256(data).digest()
        if key not in self.offsets:
            self.file.write(b"\0" * (-self.file.tell() % _ALIGNMENT))
            self.offsets[key] = self.file.tell()
            self.file.write(data)
        return self.offsets[key]

    def close(self) -> None:
        """Finish the file."""
        self.file.close()
