"""PyTorch to Core ML: ``encode`` and ``step`` as ML programs, for iOS 18 or for older systems.

1. trace both graphs with torch.export, the source's length dynamic
2. convert each to an ML program, with names, ranges and compute precision
3. compress the weights of each: coremltools compresses single functions only
4. describe each: what every input, output and state is
5. iOS 18: merge both into one package that stores each weight once; else save two
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import jaxtyping
import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lite_export.coreml_precision import PRECISIONS, RECIPES, Precision, compress
from lite_export.flavours import Slots
from lite_export.graphs import EncodeGraph, StepGraph, decoder_layer_names, encoder_layer_names, state_specs
from lite_export.errors import ExportError
from lite_runtime.manifest import Graph, StateTensor, TensorSpec
from lite_runtime.quiet_coremltools import INSTALL, coremltools, quiet
from lite_transformer.config import ModelConfig
from lite_transformer.model import LiteTransformer

Cache = Literal["stateful", "explicit"]
# Any length above one; one would be taken for a constant.
_EXAMPLE_SOURCE = 7
_ABOUT = {
    "source": "Token ids of the source sentence, end of sentence included.",
    "mask": "1 at the source's tokens, 0 at padding.",
    "tokens": "The token chosen last; the start token at the first step.",
    "position": "Number of the step, from 0.",
    "logits": "Scores of the next token, before softmax.",
}
_ABOUT_STATE = {
    "self_kv": "Cache of self-attention, filled up to the position.",
    "conv_window": "The last inputs of the convolution.",
    "cross_kv": "The source, projected once for cross-attention.",
    "cross_mask": "Added to the scores of cross-attention: hides padding.",
    "memory": "Memory of the layer.",
}


@dataclass(frozen=True)
class PackageCard:
    """What Xcode shows of a package."""

    author: str
    licence: str
    description: str
    version: str


def export_coreml(
    model: LiteTransformer, folder: Path, precision: Precision, cache: Cache, card: PackageCard
) -> tuple[Graph, Graph, tuple[StateTensor, ...]]:
    """Write one form of a model as Core ML packages into ``folder``.

    ``stateful`` caches are Core ML states (iOS 18): one package ``PRECISION-stateful.mlpackage`` with the functions
    ``encode`` and ``step`` over shared weights. Where caches are ``explicit`` inputs and outputs, fp32, fp16 and int8
    run from iOS 16: two packages ``PRECISION/encode.mlpackage`` and ``PRECISION/step.mlpackage``, which Core ML cannot
    let share a file, so that both hold the token table. int4 and palette4 need iOS 18 with either cache; with explicit
    caches they are one package too, ``PRECISION.mlpackage``.

    Returns:
        the manifest's encode and step graphs and state, with package names relative to ``folder``. Core ML's names
        may hold no dots: inputs and outputs carry an underscore instead, in the order of the states and layers.

    Raises:
        ExportError: unknown precision, a language model, or coremltools is not installed.
    """
    config = model.config
    if precision not in PRECISIONS:
        raise ExportError(f"no {precision} for Core ML; choose from {', '.join(PRECISIONS)}")
    if config.encoder is None:
        raise ExportError("a language model has no encoder: only translation models are exported to Core ML so far")
    try:
        coremltools()
    except ModuleNotFoundError:
        raise ExportError(f"Core ML packages are made by coremltools: {INSTALL}") from None
    specs = tuple(_named(spec) for spec in state_specs(config, config.max_target, cache == "stateful"))
    encode, step = _encode_signature(config, specs), _step_signature(config, specs)
    system = "iOS18" if cache == "stateful" else RECIPES[precision].since
    flavour, model = Slots(config.max_target), model.eval()
    converted = [
        _convert(_trace_encode(EncodeGraph(model, flavour), config), encode, system, precision),
        _convert(_trace_step(StepGraph(model, flavour), config, specs), step, system, precision),
    ]
    for function, graph in zip(converted, (encode, step), strict=True):
        _describe(function, graph, specs)
    if system == "iOS18":
        name = f"{precision}-stateful.mlpackage" if cache == "stateful" else f"{precision}.mlpackage"
        _save_merged(converted, folder / name, card)
        return *(g.model_copy(update={"file": name, "function": g.function}) for g in (encode, step)), specs
    return *_save_apart(converted, (encode, step), folder, precision, card), specs


def coreml_name(name: str) -> str:
    """A tensor's name in a package."""
    return name.replace(".", "_")


def _named(spec: StateTensor) -> StateTensor:
    return spec.model_copy(update={"output": coreml_name(spec.output) if spec.output else None})


def _encode_signature(config: ModelConfig, specs: Sequence[StateTensor]) -> Graph:
    layers = encoder_layer_names(config)
    ids = [TensorSpec(name=name, dtype="int32", shape=(1, "source")) for name in ("source", "mask")]
    fixed = [_tensor(s.name, *s.shape) for s in specs if s.initial is None]
    outputs = (*fixed, *(_tensor(name, "source", config.width) for name in layers))
    return Graph(file="", function="encode", inputs=tuple(ids), outputs=outputs, layers=tuple(layers))


def _step_signature(config: ModelConfig, specs: Sequence[StateTensor]) -> Graph:
    layers, explicit = decoder_layer_names(config), [spec for spec in specs if not spec.held]
    ids = [TensorSpec(name=name, dtype="int32", shape=(1,)) for name in ("tokens", "position")]
    inputs = (*ids, *(_tensor(s.name, *s.shape) for s in explicit))
    outputs = (
        _tensor("logits", 1, config.target_vocab),
        *(_tensor(s.output, *s.shape) for s in explicit if s.output),
        *(_tensor(name, 1, config.width) for name in layers),
    )
    return Graph(file="", function="step", inputs=inputs, outputs=outputs, layers=tuple(layers))


def _tensor(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=coreml_name(name), dtype="float32", shape=shape)


class _IntegerMask(nn.Module):
    """The encode graph with its mask as 0 and 1: Core ML has no boolean inputs."""

    def __init__(self, graph: EncodeGraph) -> None:
        super().__init__()
        self.inner = graph

    def forward(self, source: Int[Tensor, "1 S"], mask: Int[Tensor, "1 S"]) -> tuple[Tensor, ...]:
        return self.inner(source, mask != 0)


class _Keeping(nn.Module):
    """The step graph with its held state in buffers, which become Core ML states: float16, the only type they have."""

    def __init__(self, graph: StepGraph, specs: Sequence[StateTensor]) -> None:
        super().__init__()
        self.inner = graph
        self.held = [coreml_name(spec.name) for spec in specs if spec.held]
        for spec in specs:
            if spec.held:
                self.register_buffer(coreml_name(spec.name), torch.zeros(_sizes(spec), dtype=torch.float16))

    def forward(self, tokens: Int[Tensor, " 1"], position: Int[Tensor, " 1"], *state: Tensor) -> tuple[Tensor, ...]:
        held = [self.get_buffer(name) for name in self.held]
        logits, *rest = self.inner(tokens, position, *(buffer.float() for buffer in held), *state)
        for buffer, new in zip(held, rest, strict=False):
            buffer.copy_(new.half())
        return logits, *rest[len(held) :]


def _trace_encode(graph: EncodeGraph, config: ModelConfig) -> ExportedProgram:
    ids = torch.full((1, _EXAMPLE_SOURCE), config.unk, dtype=torch.int32)
    source = {1: Dim("source", min=1, max=config.max_source)}
    return _trace(_IntegerMask(graph), (ids, torch.ones_like(ids)), {"source": source, "mask": source})


def _trace_step(graph: StepGraph, config: ModelConfig, specs: Sequence[StateTensor]) -> ExportedProgram:
    explicit, source = [spec for spec in specs if not spec.held], Dim("source", min=1, max=config.max_source)
    token = torch.tensor([config.unk], dtype=torch.int32)
    state = [torch.zeros(_sizes(spec)) for spec in explicit]
    axes = tuple({i: source for i, size in enumerate(spec.shape) if isinstance(size, str)} for spec in explicit)
    return _trace(
        _Keeping(graph, specs),
        (token, torch.zeros_like(token), *state),
        {"tokens": None, "position": None, "state": axes},
    )


def _sizes(spec: StateTensor) -> list[int]:
    return [_EXAMPLE_SOURCE if isinstance(size, str) else size for size in spec.shape]


def _trace(module: nn.Module, example: tuple[Tensor, ...], axes: dict[str, Any]) -> ExportedProgram:
    with _tracing():
        program = torch.export.export(module.eval(), example, dynamic_shapes=axes)
        # The one operation of ours that coremltools does not take as torch.export leaves it.
        return program.run_decompositions({torch.ops.aten.where.ScalarOther: _where})


def _where(condition: Tensor, chosen: Tensor, other: float) -> Tensor:
    return torch.where(condition, chosen, torch.full_like(chosen, other))


@contextmanager
def _tracing() -> Iterator[None]:
    """Without shape checks, which would be specialised on, and torch's own deprecation inside torch."""
    checking = jaxtyping.config.jaxtyping_disable
    try:
        jaxtyping.config.update("jaxtyping_disable", True)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", checking)


def _convert(program: ExportedProgram, graph: Graph, system: str, precision: Precision) -> Any:
    """One function as an ``MLModel``, its weights compressed."""
    tools, compute = coremltools(), RECIPES[precision].compute
    passes = tools.PassPipeline()
    if compute == "FLOAT32":
        # It moves state updates next to what they store, and fails where a cast to float16 stands between.
        passes.remove_passes({"common::canonicalize_inplace_pattern"})
    with quiet():
        converted = tools.convert(
            program,
            inputs=[tools.TensorType(name=spec.name, dtype=np.dtype(spec.dtype).type) for spec in graph.inputs],
            outputs=[tools.TensorType(name=spec.name, dtype=np.dtype(spec.dtype).type) for spec in graph.outputs],
            minimum_deployment_target=getattr(tools.target, system),
            compute_precision=getattr(tools.precision, compute),
            pass_pipeline=passes,
            skip_model_load=True,
        )
    return compress(converted, precision)


def _describe(model: Any, graph: Graph, specs: Sequence[StateTensor]) -> None:
    """Say of every input, output and state what it is."""
    about = dict(_ABOUT)
    for spec in specs:
        layer = "" if spec.layer is None else f" Decoder layer {spec.layer}."
        for name in (spec.name, spec.output):
            if name:
                about[coreml_name(name)] = _ABOUT_STATE[spec.kind] + layer
    for layer_name in graph.layers:
        about[coreml_name(layer_name)] = "What the layer gave: to compare runtimes with; an app ignores it."
    description = model.get_spec().description
    for features in (description.input, description.output, description.state):
        for feature in features:
            feature.shortDescription = about[feature.name]


def _save_merged(functions: Sequence[Any], path: Path, card: PackageCard) -> None:
    """One package of both functions. Saved twice: the merger forgets the card."""
    tools = coremltools()
    merged = tools.utils.MultiFunctionDescriptor()
    with TemporaryDirectory(dir=path.parent, prefix=".") as scratch, quiet():
        for function, name in zip(functions, ("encode", "step"), strict=True):
            part = f"{scratch}/{name}.mlpackage"
            function.save(part)
            merged.add_function(part, src_function_name="main", target_function_name=name)
        merged.default_function_name = "step"
        tools.utils.save_multifunction(merged, f"{scratch}/merged.mlpackage")
        whole = tools.models.MLModel(f"{scratch}/merged.mlpackage", skip_model_load=True)
        _sign(whole, card)
        whole.save(str(path))


def _save_apart(
    functions: Sequence[Any], graphs: Sequence[Graph], folder: Path, precision: Precision, card: PackageCard
) -> tuple[Graph, ...]:
    (folder / precision).mkdir()
    named = []
    for function, graph in zip(functions, graphs, strict=True):
        file = f"{precision}/{graph.function}.mlpackage"
        _sign(function, card)
        with quiet():
            function.save(str(folder / file))
        named.append(graph.model_copy(update={"file": file, "function": None}))
    return tuple(named)


def _sign(model: Any, card: PackageCard) -> None:
    model.author, model.license = card.author, card.licence
    model.short_description, model.version = card.description, card.version
