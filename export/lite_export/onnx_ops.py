"""Writing ONNX graphs by hand: nodes in order, constants stored once, whole graphs taken in as parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from lite_runtime.manifest import Graph, TensorSpec

# An int or a list of them is int64, a float is float32; anything else is spelt as an array.
Constant = bool | int | float | str | Sequence[int] | np.ndarray
# What an operator reads; None leaves an optional input out.
Operand = ir.Value | Constant | None


class Ops:
    """Nodes of one graph, in the order they run.

    Call it with an operator and its inputs to get the output. ``inner()`` writes a subgraph, which may use every
    value of this one; both keep their constants here, in the outermost graph.
    """

    def __init__(self, constants: dict[tuple, ir.Value] | None = None) -> None:
        self.nodes: list[ir.Node] = []
        self._constants: dict[tuple, ir.Value] = {} if constants is None else constants

    def __call__(self, kind: str, *inputs: Operand, domain: str = "", **attributes: Any) -> ir.Value:
        """The only output of a new node."""
        return self.several(kind, 1, *inputs, domain=domain, **attributes)[0]

    def several(
        self, kind: str, outputs: int, *inputs: Operand, domain: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """The outputs of a new node, all of them."""
        values = [x if x is None or isinstance(x, ir.Value) else self.constant(x) for x in inputs]
        node = ir.node(kind, values, attributes, domain=domain, num_outputs=outputs)
        self.nodes.append(node)
        return node.outputs

    def inner(self) -> Ops:
        """For the body of a ``Loop`` or the branch of an ``If``."""
        return Ops(self._constants)

    def constant(self, content: Constant) -> ir.Value:
        """An initializer of that content; equal ones are one."""
        array = np.asarray(content, np.float32 if isinstance(content, float) else None)
        return self._keep(ir.Value(const_value=_tensor(array)))

    def take(self, part: ir.Graph, inputs: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
        """Move a graph's nodes and weights here, fed with ``inputs``; its outputs by name. The graph is used up."""
        outputs = {str(value.name): value for value in part.outputs}
        for value in part.inputs:
            value.replace_all_uses_with(inputs[str(value.name)])
        weights = list(part.initializers.values())
        part.initializers.clear()
        for value in weights:
            if (kept := self._keep(value)) is not value:
                value.replace_all_uses_with(kept)
        part.outputs.clear()
        nodes = list(part)
        part.remove(nodes)
        self.nodes.extend(nodes)
        return outputs

    def graph(self, name: str, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Graph:
        """The nodes as a subgraph, whose constants are outside."""
        return ir.Graph(inputs, outputs, nodes=self.nodes, name=name)

    def model(
        self, name: str, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], opsets: Iterable[Mapping[str, int]]
    ) -> ir.Model:
        """The nodes as a model that knows every operator set of its parts."""
        versions: dict[str, int] = {}
        for imports in opsets:
            for domain, version in imports.items():
                versions[domain] = max(version, versions.get(domain, 0))
        for number, value in enumerate(self._constants.values()):
            value.name = value.name or f"constant.{number}"
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=self.nodes,
            initializers=_distinct(self._constants.values()),
            opset_imports=versions,
            name=name,
        )
        return ir.Model(graph, ir_version=10, producer_name="lite-export")

    def _keep(self, value: ir.Value) -> ir.Value:
        tensor = value.const_value
        assert tensor is not None
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        return self._constants.setdefault(_identity(tensor), value)


def _tensor(array: np.ndarray) -> ir.TensorProtocol:
    if array.dtype.kind == "U":
        return ir.StringTensor([str(x).encode() for x in array.ravel()], shape=ir.Shape(array.shape))
    return ir.tensor(array)


def _identity(tensor: ir.TensorProtocol) -> tuple:
    """What makes two weights one: the same place of the same file, or the same bytes."""
    shape = tuple(tensor.shape.numpy())
    if isinstance(tensor, ir.ExternalTensor):
        return tensor.dtype, shape, str(tensor.location), tensor.offset, tensor.length
    if tensor.dtype == ir.DataType.STRING:
        return tensor.dtype, shape, tuple(tensor.numpy().ravel().tolist())
    return tensor.dtype, shape, tensor.tobytes()


def _distinct(values: Iterable[ir.Value]) -> list[ir.Value]:
    """The same values, each under a name of its own: parts come from files that knew nothing of each other."""
    used: set[str] = set()
    kept = []
    for value in values:
        name, number = str(value.name), 0
        while value.name in used:
            number += 1
            value.name = f"{name}.{number}"
        used.add(str(value.name))
        kept.append(value)
    return kept


def value(name: str, dtype: ir.DataType, shape: Sequence[int | str | None]) -> ir.Value:
    """A graph's input."""
    return named(ir.Value(), name, dtype, shape)


def named(result: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str | None]) -> ir.Value:
    """A node's output as a graph's: with a name and a type."""
    result.name, result.type, result.shape = name, ir.TensorType(dtype), ir.Shape(shape)
    return result


def describe(model: ir.Model, file: str, layers: Sequence[str] = ()) -> Graph:
    """A model's inputs and outputs for the manifest."""
    return Graph(
        file=file,
        layers=tuple(layers),
        inputs=tuple(map(_tensor_spec, model.graph.inputs)),
        outputs=tuple(map(_tensor_spec, model.graph.outputs)),
    )


def _tensor_spec(value: ir.Value) -> TensorSpec:
    assert value.name is not None and value.dtype is not None and value.shape is not None
    dtype = "string" if value.dtype == ir.DataType.STRING else value.dtype.numpy().name
    return TensorSpec(
        name=value.name, dtype=dtype, shape=tuple(d if isinstance(d, int) else str(d.value) for d in value.shape)
    )
