"""Precisions of an ExecuTorch export, applied to the lowered program: lowering takes a minute, this a second.

8 bit: weights with one scale per output, activations quantized as they come, once for all products that read them
(8da8w); a looked-up table has one scale per row, the same as where it projects, so its bytes are stored once.
4 bit: weights in groups of 32 inputs that share a scale (8da4w). A table that is looked up stays at 8 bit: the lookup
and XNNPACK pack pairs of 4-bit numbers in opposite orders, so it would be stored twice, for the bytes of one at 8.
Norms, taps and positions are no weights of products: they stay as they are.
"""

from __future__ import annotations

import hashlib

import numpy as np
from executorch.exir.scalar_type import ScalarType
from executorch.exir.schema import EValue, ExecutionPlan, Int, KernelCall, Null, Operator, Tensor, TensorShapeDynamism

from lite_export.executorch_file import ProgramFile
from lite_export.xnnpack_graph import Json, XnnpackGraph
from lite_export.xnnpack_weights import GROUP, eight_bit, four_bit

_LOOKUP = ("aten::embedding", "out")
_BYTE_LOOKUP = Operator("quantized_decomposed::embedding_byte", "out")


def quantize(file: ProgramFile, precision: str) -> None:
    """Bring a program's products and lookups to ``precision``, in place."""
    if precision == "fp32":
        return
    tables = _quantize_lookups(file)
    used: set[str] = set()
    for plan in file.program.execution_plan:
        graphs = [XnnpackGraph(payload) for payload in file.payloads[plan.name]]
        for graph in graphs:
            _quantize_products(graph, file.weights, tables, precision)
            used |= graph.keys()
        file.payloads[plan.name] = [graph.payload() for graph in graphs]
    file.weights = {key: data for key, data in file.weights.items() if key in used}


def _quantize_lookups(file: ProgramFile) -> set[bytes]:
    """Every lookup becomes one of bytes. Returns the tables as they were."""
    tables: dict[int, tuple[int, int, bytes]] = {}
    for plan in file.program.execution_plan:
        for call in _lookups(plan):
            weight = plan.values[call.args[0]].val
            assert isinstance(weight, Tensor)
            old = weight.data_buffer_idx
            if old not in tables:
                table = file.constants.pop(old)
                quantized = eight_bit(np.frombuffer(table, np.float32).reshape(weight.sizes))
                file.constants[old], scales = quantized.numbers, max(file.constants) + 1
                file.constants[scales] = quantized.scales
                tables[old] = old, scales, table
            _look_up_bytes(plan, call, weight, tables[old][1])
    return {table for _, _, table in tables.values()}


def _lookups(plan: ExecutionPlan) -> list[KernelCall]:
    calls = [i.instr_args for chain in plan.chains for i in chain.instructions]
    kernels = [call for call in calls if isinstance(call, KernelCall)]
    return [k for k in kernels if (plan.operators[k.op_index].name, plan.operators[k.op_index].overload) == _LOOKUP]


def _look_up_bytes(plan: ExecutionPlan, call: KernelCall, weight: Tensor, scales: int) -> None:
    """Turn ``embedding(weight, indices, padding, ...)`` into ``embedding_byte(weight, scales, ...)``."""
    weight.scalar_type = ScalarType.CHAR
    factors = Tensor(
        scalar_type=ScalarType.FLOAT,
        storage_offset=0,
        sizes=[weight.sizes[0], 1],
        dim_order=[0, 1],
        requires_grad=False,
        layout=0,
        data_buffer_idx=scales,
        allocation_info=None,
        shape_dynamism=TensorShapeDynamism.STATIC,
    )
    first = len(plan.values)
    plan.values += [EValue(factors), EValue(Null()), EValue(Int(-128)), EValue(Int(127))]
    table, indices, *_, output = call.args
    call.args = [table, first, first + 1, first + 2, first + 3, indices, output, output]
    # The operator is the lookup's alone: no other call names it.
    plan.operators[call.op_index] = _BYTE_LOOKUP


def _quantize_products(graph: XnnpackGraph, weights: dict[str, bytes], tables: set[bytes], precision: str) -> None:
    inputs: dict[int, int] = {}
    nodes: list[Json] = []
    for node in graph.content["xnodes"]:
        product = node["xnode_union"]
        if node["xnode_union_type"] == "XNNFullyConnected" and _is_weight(graph, product["filter_id"]):
            _quantize_filter(graph, product["filter_id"], weights, tables, precision)
            source = product["input1_id"]
            if source not in inputs:
                inputs[source] = _quantized_input(graph, source)
                nodes.append(_conversion(source, inputs[source], node["debug_handle"]))
            product["input1_id"] = inputs[source]
        nodes.append(node)
    graph.content["xnodes"] = nodes
    graph.drop_unused_constants()


def _is_weight(graph: XnnpackGraph, value: int) -> bool:
    # A single row takes the mean of a norm.
    return graph.key(value) != "" and graph.dims(value)[0] > 1


def _quantize_filter(
    graph: XnnpackGraph, value: int, weights: dict[str, bytes], tables: set[bytes], precision: str
) -> None:
    data, dims = weights.get(graph.key(value), b""), graph.dims(value)
    if graph.values[value]["xvalue_union_type"] != "XNNTensorValue":
        # Another product's too, and done with it.
        return
    matrix = np.frombuffer(data, np.float32).reshape(dims)
    in_groups = precision == "int4" and data not in tables and dims[1] % GROUP == 0
    weight = four_bit(matrix) if in_groups else eight_bit(matrix)
    numbers, scales = _stored(weights, weight.numbers), _stored(weights, weight.scales)
    parameters = {**weight.parameters, "scale_buffer_idx": graph.hold(scales, len(weight.scales))}
    constant = graph.hold(numbers, len(weight.numbers))
    graph.values[value] = graph.quantize(weight.datatype, value, constant, weight.kind, parameters)


def _stored(weights: dict[str, bytes], data: bytes) -> str:
    key = hashlib.sha256(data).hexdigest()
    weights[key] = data
    return key


def _quantized_input(graph: XnnpackGraph, value: int) -> int:
    """A value for the same activations in 8 bit, a scale for each row."""
    return graph.add(graph.quantize("xnn_datatype_qdint8", value, 0, "PerTokenDynamicQuant", {"num_nonbatch_dims": 1}))


def _conversion(source: int, target: int, handle: int) -> Json:
    union = {"input_id": source, "output_id": target, "flags": 0}
    return {"xnode_union_type": "XNNConvert", "xnode_union": union, "debug_handle": handle}
