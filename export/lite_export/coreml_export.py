"""PyTorch to Core ML: ``encode`` and ``step`` as ML programs, for iOS 18 or for older systems.

1. trace both graphs with torch.export, the source's length dynamic
2. convert each to an ML program, with names, ranges and compute precision
3. compress the weights of each: coremltools compresses single functions only
4. describe each: what every input, output and state is
5. iOS 18: merge both into one package that stores each weight once; else save two
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
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

from lite_export.coreml_precision import RECIPES, Precision, compress
from lite_export.errors import ExportError
from lite_export.flavours import Slots
from lite_export.graphs import EncodeGraph, StepGraph, decoder_layer_names, encoder_layer_names, state_specs
from lite_runtime.manifest import Graph, StateTensor, TensorSpec
from lite_runtime.quiet_coremltools import INSTALL, coremltools, quiet
from lite_transformer.config import ModelConfig
from lite_transformer.model import LiteTransformer

Cache = Literal["stateful", "explicit"]
# Any length above one; one would be taken for a constant.
_EXAMPLE_SOURCE = 7
# Powers of two between the two halves of a value: what float16 leaves over is then no denormal number.
_SHIFT = 11
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


Form = tuple[Graph, Graph, tuple[StateTensor, ...]]


def export_coreml(model: LiteTransformer, folder: Path, precision: Precision, cache: Cache, card: PackageCard) -> Form:
    """Write one form of a model into ``folder``; see ``CoreMlExporter``, which makes several faster."""
    return CoreMlExporter(model, card).write(folder, precision, cache)


class CoreMlExporter:
    """Writes a model as Core ML packages; what its forms have in common is traced and converted once.

    ``stateful`` caches are Core ML states (iOS 18): one package ``PRECISION-stateful.mlpackage`` with the functions
    ``encode`` and ``step`` over shared weights. Where caches are ``explicit`` inputs and outputs, fp32, fp16 and int8
    run from iOS 16: two packages ``PRECISION/encode.mlpackage`` and ``PRECISION/step.mlpackage``, which Core ML cannot
    let share a file, so that both hold the token table. int4 and palette4 need iOS 18 with either cache; with explicit
    caches they are one package too, ``PRECISION.mlpackage``.

    Raises:
        ExportError: a language model, or coremltools is not installed.
    """

    def __init__(self, model: LiteTransformer, card: PackageCard) -> None:
        if model.config.encoder is None:
            raise ExportError("a language model has no encoder: only translation models are exported to Core ML so far")
        try:
            coremltools()
        except ModuleNotFoundError:
            raise ExportError(f"Core ML packages are made by coremltools: {INSTALL}") from None
        self.model, self.card = model.eval(), card
        self._made: dict[tuple[str, ...], Any] = {}

    def write(self, folder: Path, precision: Precision, cache: Cache) -> Form:
        """Write one form.

        Returns:
            the manifest's encode and step graphs and state, with package names relative to ``folder``. Core ML's
            names may hold no dots: inputs and outputs carry an underscore instead, in the order of the states, and
            the last outputs are the layers.
        """
        system = "iOS18" if cache == "stateful" else RECIPES[precision].since
        config = self.model.config
        specs = tuple(_named(spec) for spec in state_specs(config, config.max_target, cache == "stateful"))
        graphs = _encode_signature(config, specs), _step_signature(config, specs)
        converted = [self._encode(graphs[0], system, precision), self._step(graphs[1], specs, system, precision)]
        functions = [compress(function, precision) for function in converted]
        described = [_described(function, graph, specs) for function, graph in zip(functions, graphs, strict=True)]
        if system == "iOS18":
            file = f"{precision}-stateful.mlpackage" if cache == "stateful" else f"{precision}.mlpackage"
            encode, step = _write_merged(described, graphs, folder, file, self.card)
        else:
            encode, step = _write_apart(described, graphs, folder, precision, self.card)
        return encode, step, specs

    def _encode(self, graph: Graph, system: str, precision: Precision) -> Any:
        """The same for all caches."""
        compute = RECIPES[precision].compute
        program = self._once(lambda: trace_encode(self.model), "encode")
        return self._once(lambda: _convert(program, graph, system, compute), "encode", system, compute)

    def _step(self, graph: Graph, specs: Sequence[StateTensor], system: str, precision: Precision) -> Any:
        compute, held = RECIPES[precision].compute, any(spec.held for spec in specs)
        # Held state needs a program of its own for float32, whose states are pairs.
        kind = "step explicit" if not held else f"step held {compute}"
        program = self._once(lambda: trace_step(self.model, specs, compute == "FLOAT32"), kind)
        return self._once(lambda: _convert(program, graph, system, compute), kind, system, compute)

    def _once(self, make: Callable[[], Any], *key: str) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


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
    """The step graph with its held state in buffers, which become Core ML states: float16, the only type they have.

    Args:
        exact: keep each value as the sum of two, so that float32 loses nothing.
    """

    def __init__(self, graph: StepGraph, specs: Sequence[StateTensor], exact: bool) -> None:
        super().__init__()
        self.inner, self.exact = graph, exact
        self.held = [coreml_name(spec.name) for spec in specs if spec.held]
        for spec in specs:
            if spec.held:
                sizes = [2, *_sizes(spec)] if exact else _sizes(spec)
                self.register_buffer(coreml_name(spec.name), torch.zeros(sizes, dtype=torch.float16))

    def forward(self, tokens: Int[Tensor, " 1"], position: Int[Tensor, " 1"], *state: Tensor) -> tuple[Tensor, ...]:
        held = [self.get_buffer(name) for name in self.held]
        logits, *rest = self.inner(tokens, position, *(self._read(buffer) for buffer in held), *state)
        for buffer, new in zip(held, rest, strict=False):
            buffer.copy_(self._stored(new))
        return logits, *rest[len(held) :]

    def _read(self, buffer: Tensor) -> Tensor:
        if not self.exact:
            return buffer.float()
        high, low = buffer.float()
        return high + low * 2.0**-_SHIFT

    def _stored(self, value: Tensor) -> Tensor:
        if not self.exact:
            return value.half()
        # Veltkamp's splitting leaves the 11 bits a float16 has; a cast there and back coremltools would drop.
        scaled = value * (2.0**13 + 1)
        high = scaled - (scaled - value)
        return torch.stack([high, (value - high) * 2.0**_SHIFT]).half()


def trace_encode(model: LiteTransformer) -> ExportedProgram:
    """The encode graph as a torch.export program with integers in."""
    config = model.config
    ids = torch.full((1, _EXAMPLE_SOURCE), config.unk, dtype=torch.int32)
    source = {1: Dim("source", min=1, max=config.max_source)}
    graph = _IntegerMask(EncodeGraph(model, Slots(config.max_target)))
    return _trace(graph, (ids, torch.ones_like(ids)), {"source": source, "mask": source})


def trace_step(model: LiteTransformer, specs: Sequence[StateTensor], exact: bool) -> ExportedProgram:
    """The step graph as a torch.export program with integers in and held state in buffers.

    Args:
        exact: keep held state to float32's precision; see ``_Keeping``.
    """
    config, explicit = model.config, [spec for spec in specs if not spec.held]
    source = Dim("source", min=1, max=config.max_source)
    axes = tuple({i: source for i, size in enumerate(spec.shape) if isinstance(size, str)} for spec in explicit)
    token = torch.tensor([config.unk], dtype=torch.int32)
    return _trace(
        _Keeping(StepGraph(model, Slots(config.max_target)), specs, exact),
        (token, torch.zeros_like(token), *(torch.zeros(_sizes(spec)) for spec in explicit)),
        {"tokens": None, "position": None, "state": axes},
    )


def _sizes(spec: StateTensor) -> list[int]:
    return [_EXAMPLE_SOURCE if isinstance(size, str) else size for size in spec.shape]


def _trace(module: nn.Module, example: tuple[Tensor, ...], axes: dict[str, Any]) -> ExportedProgram:
    with _tracing():
        program = torch.export.export(module.eval(), example, dynamic_shapes=axes)
        # The operations of ours that coremltools does not take as torch.export leaves them.
        return program.run_decompositions(
            {torch.ops.aten.where.ScalarOther: _where, torch.ops.aten.unfold.default: _unfold}
        )


def _where(condition: Tensor, chosen: Tensor, other: float) -> Tensor:
    return torch.where(condition, chosen, torch.full_like(chosen, other))


def _unfold(x: Tensor, axis: int, size: int, step: int) -> Tensor:
    """Every run of ``size`` along ``axis``, as the last axis: gathered."""
    axis %= x.dim()
    starts = torch.arange(0, x.shape[axis] - size + 1, step, dtype=torch.int32)
    places = starts[:, None] + torch.arange(size, dtype=torch.int32)
    runs = x.index_select(axis, places.flatten())
    return runs.unflatten(axis, places.shape).movedim(axis + 1, -1)


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


def _convert(program: ExportedProgram, graph: Graph, system: str, compute: str) -> Any:
    """One function as an ``MLModel``."""
    tools = coremltools()
    passes = tools.PassPipeline()
    if compute == "FLOAT32":
        # It moves state updates next to what they store, and fails where a cast to float16 stands between.
        passes.remove_passes({"common::canonicalize_inplace_pattern"})
    with quiet():
        return tools.convert(
            program,
            inputs=[tools.TensorType(name=spec.name, dtype=np.dtype(spec.dtype).type) for spec in graph.inputs],
            outputs=[tools.TensorType(name=spec.name, dtype=np.dtype(spec.dtype).type) for spec in graph.outputs],
            minimum_deployment_target=getattr(tools.target, system),
            compute_precision=getattr(tools.precision, compute),
            pass_pipeline=passes,
            skip_model_load=True,
        )


def _described(model: Any, graph: Graph, specs: Sequence[StateTensor]) -> Any:
    """The same function, saying of every input, output and state what it is."""
    about = dict(_ABOUT)
    for spec in specs:
        layer = "" if spec.layer is None else f" Decoder layer {spec.layer}."
        for name in filter(None, (spec.name, spec.output)):
            about[coreml_name(name)] = _ABOUT_STATE[spec.kind] + layer
    for name in graph.layers:
        about[coreml_name(name)] = "What the layer gave: to compare runtimes by; an app ignores it."
    content = model.get_spec()
    for features in (content.description.input, content.description.output, content.description.state):
        for feature in features:
            feature.shortDescription = about[feature.name]
    with quiet():
        return coremltools().models.MLModel(content, weights_dir=model.weights_dir, skip_model_load=True)


def _write_merged(
    functions: Sequence[Any], graphs: Sequence[Graph], folder: Path, file: str, card: PackageCard
) -> list[Graph]:
    """One package of both functions."""
    tools = coremltools()
    merged = tools.utils.MultiFunctionDescriptor()
    with TemporaryDirectory(dir=folder, prefix=".") as scratch:
        for function, graph in zip(functions, graphs, strict=True):
            part = f"{scratch}/{graph.function}.mlpackage"
            function.save(part)
            merged.add_function(part, src_function_name="main", target_function_name=graph.function)
        merged.default_function_name = graphs[-1].function
        with quiet():
            tools.utils.save_multifunction(merged, f"{scratch}/merged.mlpackage")
            # Opened again, as the merger forgets the card.
            _save(tools.models.MLModel(f"{scratch}/merged.mlpackage", skip_model_load=True), folder / file, card)
    return [graph.model_copy(update={"file": file}) for graph in graphs]


def _write_apart(
    functions: Sequence[Any], graphs: Sequence[Graph], folder: Path, precision: Precision, card: PackageCard
) -> list[Graph]:
    """A package for each function, whose only one is nameless."""
    (folder / precision).mkdir()
    named = []
    for function, graph in zip(functions, graphs, strict=True):
        file = f"{precision}/{graph.function}.mlpackage"
        _save(function, folder / file, card)
        named.append(graph.model_copy(update={"file": file, "function": None}))
    return named


def _save(model: Any, path: Path, card: PackageCard) -> None:
    model.author, model.license = card.author, card.licence
    model.short_description, model.version = card.description, card.version
    with quiet():
        model.save(str(path))
    for file in path.rglob("*"):
        # coremltools lets nobody else read the specification.
        file.chmod(0o755 if file.is_dir() else 0o644)
