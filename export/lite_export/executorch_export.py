"""PyTorch to ExecuTorch: one ``.pte`` with the methods ``encode`` and ``step``, delegated to XNNPACK.

1. bring both graphs into the form XNNPACK takes over whole (``xnnpack_form``)
2. trace with torch.export, the source's length dynamic
3. write every change of shape as the one operation XNNPACK knows, then lower: the minute all of this takes
4. for each precision, quantize the lowered program (``executorch_quantize``)
5. store each weight once (``executorch_file``): the table that embeds and projects, above all
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jaxtyping
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lite_export.errors import ExportError
from lite_export.graphs import StepGraph, decoder_layer_names, encoder_layer_names, state_specs
from lite_export.xnnpack_form import ApartEncode, apart_step
from lite_runtime.manifest import Graph, StateTensor, TensorSpec
from lite_runtime.quiet_executorch import INSTALL, quiet
from lite_transformer.config import ModelConfig
from lite_transformer.model import LiteTransformer

if TYPE_CHECKING:
    from executorch.exir import EdgeProgramManager

    from lite_export.executorch_file import ProgramFile

Cache = Literal["explicit", "stateful"]
PRECISIONS = ("fp32", "int8", "int4")
# Any length will do that is no other size of the graph: torch.export must not take it for one of those.
_EXAMPLE_SOURCE = 7


def export_executorch(
    model: LiteTransformer, paths: Mapping[str, Path], cache: Cache
) -> dict[str, tuple[Graph, Graph, tuple[StateTensor, ...]]]:
    """Write a ``.pte`` for each precision at its path, whose folder exists; the model is lowered once for all.

    Besides ``encode`` and ``step`` a file has a method without inputs for each number an app needs; see ``facts``.

    Args:
        cache: explicit (the changing state goes in and out of ``step``) or stateful (``step`` keeps it).

    Returns:
        by precision, the manifest's descriptions of encode and step, with the file's name relative to its folder,
        and the state.

    Raises:
        ExportError: ExecuTorch is not installed, an unknown precision, a model without an encoder, or a length that
            came out fixed.
    """
    config = model.config
    unknown = [precision for precision in paths if precision not in PRECISIONS]
    if unknown:
        raise ExportError(f"no {', '.join(unknown)} for ExecuTorch; choose from {', '.join(PRECISIONS)}")
    if config.encoder is None:
        raise ExportError("a language model has no encoder: only translation models are exported to ExecuTorch so far")
    specs = state_specs(config, slots=config.max_target, held=cache == "stateful")
    with _lowering():
        require_executorch()
        from lite_export.executorch_file import ProgramFile
        from lite_export.executorch_quantize import quantize

        lowered = _serialized(_lower(_programs(model.eval(), specs), facts(config)))
        for precision, path in paths.items():
            file = ProgramFile.read(lowered)
            check_axes(file)
            quantize(file, precision)
            path.write_bytes(file.write())
    return {precision: (*describe(config, path.name, specs), specs) for precision, path in paths.items()}


def facts(config: ModelConfig) -> dict[str, int]:
    """What the file's methods without inputs return: limits, sizes and token ids."""
    assert config.encoder is not None
    return {
        "max_source": config.max_source,
        "max_target": config.max_target,
        "vocabulary": config.target_vocab,
        "encoder_layers": config.encoder.layers,
        "decoder_layers": config.decoder.layers,
        "pad": config.pad,
        "eos": config.eos,
        "start": config.eos,
    }


class HeldStep(nn.Module):
    """A step that keeps its changing state: ``(tokens, position, *fixed) -> (logits, *layer outputs)``."""

    def __init__(self, step: StepGraph, specs: tuple[StateTensor, ...]) -> None:
        super().__init__()
        self.step = step
        self.names = [spec.name.replace(".", "_") for spec in specs if spec.held]
        for name, spec in zip(self.names, specs, strict=False):
            self.register_buffer(name, torch.zeros([int(size) for size in spec.shape]))

    def forward(self, tokens: Int[Tensor, " 1"], position: Int[Tensor, " 1"], *fixed: Tensor) -> tuple[Tensor, ...]:
        held = [getattr(self, name) for name in self.names]
        logits, *rest = self.step(tokens, position, *held, *fixed)
        for old, new in zip(held, rest, strict=False):
            old.copy_(new)
        return logits, *rest[len(held) :]


def _programs(model: LiteTransformer, specs: tuple[StateTensor, ...]) -> dict[str, ExportedProgram]:
    """Both methods, traced."""
    config = model.config
    step = apart_step(model)
    held = any(spec.held for spec in specs)
    source = Dim("source", min=1, max=config.max_source)
    given = [spec for spec in specs if not spec.held]
    state = tuple(torch.zeros([_EXAMPLE_SOURCE if d == "source" else int(d) for d in s.shape]) for s in given)
    axes = tuple({s.shape.index("source"): source} if "source" in s.shape else None for s in given)
    sentence = (torch.full((1, _EXAMPLE_SOURCE), config.unk), torch.ones(1, _EXAMPLE_SOURCE, dtype=torch.bool))
    return {
        "encode": _traced(ApartEncode(model), sentence, ({1: source}, {1: source})),
        "step": _traced(
            HeldStep(step, specs) if held else step,
            (torch.tensor([config.unk]), torch.tensor([5]), *state),
            (None, None, axes),
        ),
    }


def _traced(graph: nn.Module, example: tuple[Tensor, ...], axes: tuple[object, ...]) -> ExportedProgram:
    # Copied, as freezing what a graph shares with the model would freeze the model.
    return torch.export.export(copy.deepcopy(graph).eval().requires_grad_(False), example, dynamic_shapes=axes)


def _lower(programs: dict[str, ExportedProgram], constants: dict[str, int]) -> EdgeProgramManager:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge

    from lite_export.executorch_passes import Views, short_preparation

    # Validity is left unchecked to save time: every operation is checked by the delegate, or run in the tests.
    # Linears stay whole: XNNPACK takes over no product without bias that has lost its name.
    config = EdgeCompileConfig(_check_ir_validity=False, preserve_ops=[torch.ops.aten.linear.default])
    edge = to_edge(programs, constant_methods=constants, compile_config=config).transform([Views()])
    with short_preparation():
        return edge.to_backend({name: XnnpackPartitioner() for name in programs})


def _serialized(lowered: EdgeProgramManager) -> bytes:
    from executorch.exir import ExecutorchBackendConfig

    return lowered.to_executorch(ExecutorchBackendConfig()).buffer


def check_axes(file: ProgramFile) -> None:
    """Lowering can freeze an axis at its example's size without an error; the file would run one length only.

    Raises:
        ExportError: it did.
    """
    from executorch.exir.schema import Tensor, TensorShapeDynamism

    encode = next(plan for plan in file.program.execution_plan if plan.name == "encode")
    for number in encode.inputs:
        tensor = encode.values[number].val
        if isinstance(tensor, Tensor) and tensor.shape_dynamism != TensorShapeDynamism.DYNAMIC_BOUND:
            raise ExportError(f"the source's length was frozen at {tensor.sizes[1]} during the export")


def describe(config: ModelConfig, file: str, specs: tuple[StateTensor, ...]) -> tuple[Graph, Graph]:
    """What the manifest says of both methods."""
    explicit = [spec for spec in specs if not spec.held]
    fixed = tuple(_tensor(s.name, s.shape) for s in specs if s.initial is None)
    encoder_layers, decoder_layers = encoder_layer_names(config), decoder_layer_names(config)
    encode = Graph(
        file=file,
        function="encode",
        inputs=(_tensor("source", (1, "source"), "int64"), _tensor("mask", (1, "source"), "bool")),
        outputs=(*fixed, *(_tensor(name, ("source", config.width)) for name in encoder_layers)),
        layers=tuple(encoder_layers),
    )
    step = Graph(
        file=file,
        function="step",
        inputs=(
            _tensor("tokens", (1,), "int64"),
            _tensor("position", (1,), "int64"),
            *(_tensor(s.name, s.shape) for s in explicit),
        ),
        outputs=(
            _tensor("logits", (1, config.target_vocab)),
            *(_tensor(s.output, s.shape) for s in explicit if s.output),
            *(_tensor(name, (1, config.width)) for name in decoder_layers),
        ),
        layers=tuple(decoder_layers),
    )
    return encode, step


def _tensor(name: str, shape: tuple[int | str, ...], dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def require_executorch() -> None:
    """Import what an export needs.

    Raises:
        ExportError: it is not installed.
    """
    try:
        import executorch.backends.xnnpack.partition.xnnpack_partitioner
        import executorch.exir  # noqa: F401
    except ModuleNotFoundError as error:
        raise ExportError(f"{error.name} is not installed, which an export to ExecuTorch needs: {INSTALL}") from None


@contextmanager
def _lowering() -> Iterator[None]:
    """Quiet, without gradients, and without shape checks, which would be specialised on."""
    checking = jaxtyping.config.jaxtyping_disable
    try:
        jaxtyping.config.update("jaxtyping_disable", True)
        with quiet(), warnings.catch_warnings(), torch.no_grad():
            warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
            # Buffers start with whatever their memory holds; the flavour Slots erases it at the first token.
            warnings.filterwarnings("ignore", "Mutation on a buffer in the model", UserWarning)
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", checking)
