"""Precisions of the ONNX graphs: how matrices are stored, and what multiplies with them.

1. find every product with a constant matrix (``Gemm``, ``MatMul``, either way round) and every lookup of tokens
2. int8, int4: a product becomes one ``com.microsoft::MatMulNBits``, bias included, a lookup one
   ``GatherBlockQuantized``; both read the same bytes of a tied table: a ``WeightPool`` stores it once, for the encoder
   too
3. fp16: matrices are stored in half precision, each behind one ``Cast``

Layer norms, biases, convolution taps and positions are some kilobytes and stay fp32. So do activations, in fp16 too:
ONNX Runtime's CPU kernels for half precision are few (on x86 none), and it would convert back and forth around each
node. It folds the casts once, at load: fp16 halves the files, and computes in fp32.

ONNX Runtime's own quantizers pass over a ``Gemm`` and over a transposed table without a word; ``Quantized.left`` says
what was passed over here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from lite_export.blockwise import Blocks, block_size, pack

_DOMAIN = "com.microsoft"
# Lets MatMulNBits round activations to int8, block by block. Its kernels for 8-bit weights are slow without.
_INT8_ACTIVATIONS = 4


@dataclass(frozen=True)
class Recipe:
    """How matrices become integers; see ``blockwise.pack``.

    Attributes:
        bits: of a weight.
        table_bits: of a weight of the embedding, and of the projection tied to it.
        block: the most weights that share a scale.
        symmetric: no zero points.
    """

    bits: int
    table_bits: int
    block: int
    symmetric: bool


# 8 bits: large blocks, which are quicker and smaller. 4 bits: small blocks and zero points cost little and lose less; a
# table of 4 bits loses more than all the rest together.
RECIPES = {
    "int8": Recipe(bits=8, table_bits=8, block=128, symmetric=True),
    "int4": Recipe(bits=4, table_bits=8, block=32, symmetric=False),
}
PRECISIONS = ("fp32", "fp16", *RECIPES)


@dataclass(frozen=True)
class Quantized:
    """What a graph holds after ``quantize``.

    Attributes:
        products: with a constant matrix, rewritten or not.
        lookups: of tokens in a table.
        left: names of the matrices that products and lookups read in fp32.
    """

    products: int
    lookups: int
    left: tuple[str, ...]


class _Use(NamedTuple):
    """``nodes`` produce ``output`` from ``given`` and the matrix ``weight`` (N, K), stored (K, N) if ``turned``.

    A product ``given @ weight.T + bias``; or, if ``lookup``, the rows of ``weight`` that ``given`` names.
    """

    nodes: tuple[ir.Node, ...]
    given: ir.Value
    weight: ir.Value
    turned: bool
    bias: ir.Value | None = None
    lookup: bool = False

    @property
    def output(self) -> ir.Value:
        return self.nodes[-1].outputs[0]

    @property
    def key(self) -> str:
        """Names the matrix as (N, K)."""
        return f"{self.weight.name}.T" if self.turned else str(self.weight.name)

    def matrix(self) -> np.ndarray:
        """The weights (N, K)."""
        assert self.weight.const_value is not None
        array = self.weight.const_value.numpy()
        return array.T if self.turned else array


def quantize(model: ir.Model, precision: str) -> Quantized:
    """Rewrite a graph, fp32 as it was traced, to a precision of ``PRECISIONS``."""
    graph = model.graph
    uses = [use for use in map(_use, graph) if use is not None]
    if precision == "fp16":
        _halve(graph, uses)
    elif precision in RECIPES:
        _to_integers(graph, uses, RECIPES[precision])
        graph.opset_imports[_DOMAIN] = 1
    _drop_unused(graph)
    lookups = sum(use.lookup for use in uses)
    return Quantized(len(uses) - lookups, lookups, _left(graph))


def _use(node: ir.Node) -> _Use | None:
    first, second = (*node.inputs, None, None)[:2]
    if first is None or second is None:
        return None
    if node.op_type == "Gather" and second.is_graph_input() and (held := _held(first)):
        return _Use((node,), second, *held, lookup=True)
    if node.op_type == "MatMul" and (held := _held(second)):
        weight, turned = held
        add, bias = _bias_added(node.outputs[0])
        return _Use((node, add) if add else (node,), first, weight, not turned, bias)
    if node.op_type == "Gemm" and _is_plain(node) and (held := _held(second)):
        weight, turned = held
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        return _Use((node,), first, weight, turned != (node.attributes.get_int("transB", 0) == 0), bias)
    return None


def _held(value: ir.Value) -> tuple[ir.Value, bool] | None:
    """The constant matrix behind a value, and whether the value is its transpose."""
    source, turned = value, False
    producer = value.producer()
    if producer is not None and producer.op_type == "Transpose" and producer.inputs[0] is not None:
        source, turned = producer.inputs[0], True
    is_matrix = source.is_initializer() and source.shape is not None and source.shape.rank() == 2
    return (source, turned) if is_matrix else None


def _bias_added(product: ir.Value) -> tuple[ir.Node | None, ir.Value | None]:
    """The ``Add`` of a constant row that is all that happens to a product, and that row."""
    uses = list(product.uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add" and not product.is_graph_output():
        other = uses[0].node.inputs[1 - uses[0].idx]
        if other is not None and other.is_initializer() and other.shape is not None and other.shape.rank() == 1:
            return uses[0].node, other
    return None, None


def _is_plain(gemm: ir.Node) -> bool:
    attributes = gemm.attributes
    factors = attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0)
    return factors == (1.0, 1.0) and not attributes.get_int("transA", 0)


def _to_integers(graph: ir.Graph, uses: Sequence[_Use], recipe: Recipe) -> None:
    tables = {use.key for use in uses if use.lookup}
    packed: dict[str, tuple[Blocks, int, int]] = {}
    for use in uses:
        if use.key not in packed:
            matrix, bits = use.matrix(), recipe.table_bits if use.key in tables else recipe.bits
            block = block_size(matrix.shape[1], recipe.block)
            packed[use.key] = pack(matrix, bits, block, recipe.symmetric), bits, block
        make = _lookup if use.lookup else _product
        _replace(graph, use, *make(graph, use, *packed[use.key]))


def _product(graph: ir.Graph, use: _Use, blocks: Blocks, bits: int, block: int) -> tuple[ir.Node, ...]:
    rows, columns = use.matrix().shape
    matrix = _constant(graph, f"{use.key}.blocks", blocks.packed)
    attributes = {"N": rows, "K": columns, "bits": bits, "block_size": block, "accuracy_level": _INT8_ACTIVATIONS}
    inputs = [use.given, matrix, *_levels(graph, use, blocks), None, use.bias]
    return (ir.node("MatMulNBits", inputs, attributes, domain=_DOMAIN),)


def _lookup(graph: ir.Graph, use: _Use, blocks: Blocks, bits: int, block: int) -> tuple[ir.Node, ...]:
    # The same bytes as a product's, in two dimensions.
    table = _constant(graph, f"{use.key}.rows", blocks.packed.reshape(len(blocks.packed), -1))
    attributes = {"gather_axis": 0, "quantize_axis": 1, "bits": bits, "block_size": block}
    inputs = [table, use.given, *_levels(graph, use, blocks)]
    rows = ir.node("GatherBlockQuantized", inputs, attributes, domain=_DOMAIN)
    columns = use.matrix().shape[1]
    if columns % block == 0:
        return (rows,)
    # What fills up the last block is cut off again.
    ends = [
        _constant(graph, f"{use.key}.{name}", np.array([n])) for name, n in (("from", 0), ("to", columns), ("on", -1))
    ]
    return rows, ir.node("Slice", [rows.outputs[0], *ends])


def _levels(graph: ir.Graph, use: _Use, blocks: Blocks) -> tuple[ir.Value, ir.Value | None]:
    """Scales and zero points."""
    scales = _constant(graph, f"{use.key}.scales", blocks.scales)
    zeros = blocks.zero_points
    return scales, None if zeros is None else _constant(graph, f"{use.key}.zeros", zeros)


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """An initializer of the graph, made where there is none of that name."""
    if name not in graph.initializers:
        graph.register_initializer(ir.Value(name=name, const_value=ir.tensor(np.ascontiguousarray(array), name=name)))
    return graph.initializers[name]


def _replace(graph: ir.Graph, use: _Use, *nodes: ir.Node) -> None:
    old, new = use.output, nodes[-1].outputs[0]
    name, new.type, new.shape = old.name, old.type, old.shape
    graph.insert_before(use.nodes[0], nodes)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(use.nodes, safe=True)
    new.name = name


def _halve(graph: ir.Graph, uses: Iterable[_Use]) -> None:
    for weight in {str(use.weight.name): use.weight for use in uses}.values():
        assert weight.const_value is not None
        half = _constant(graph, f"{weight.name}.half", weight.const_value.numpy().astype(np.float16))
        node = ir.node("Cast", [half], {"to": ir.DataType.FLOAT})
        node.outputs[0].type, node.outputs[0].shape = weight.type, weight.shape
        weight.replace_all_uses_with(node.outputs[0])
        graph.insert_before(graph[0], node)


def _drop_unused(graph: ir.Graph) -> None:
    """Drop transposes, then initializers, that nothing reads any more."""
    for node in [n for n in graph if n.op_type == "Transpose" and not n.outputs[0].uses()]:
        graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses():
            graph.initializers.pop(name)


def _left(graph: ir.Graph) -> tuple[str, ...]:
    """Matrices that still reach a product or a lookup of tokens as they were."""
    found: dict[str, None] = {}
    for node in graph:
        sides = {"MatMul": node.inputs[:2], "Gemm": node.inputs[:2]}.get(node.op_type, ())
        if node.op_type == "Gather" and node.inputs[1] is not None and node.inputs[1].is_graph_input():
            sides = node.inputs[:1]
        for side in sides:
            if side is not None and (held := _held(side)) is not None:
                found[str(held[0].name)] = None
    return tuple(found)
