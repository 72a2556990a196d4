"""What integers can win at all: one vocabulary projection, alone, in ONNX Runtime's fp32 and 8-bit kernels.

    python benchmarks/kernels.py [--rows 8000] [--columns 256] [--rounds 25]

One row of activations times a (columns, rows) matrix on one thread, as in a decode step. No export can beat the ratio
of the kernels in the share of a step they take. Interleaved; CPU time; the quickest round, and the median one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime

from lite_export.blockwise import block_size, pack

DOMAIN = "com.microsoft"
CALLS = 20


def session(operator: str, constants: Sequence[np.ndarray | None], **attributes: int) -> onnxruntime.InferenceSession:
    """``operator(x, *constants)`` for one row of any width, on one thread."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, "columns"]))
    held = [None if c is None else ir.Value(name=f"c{i}", const_value=ir.tensor(c)) for i, c in enumerate(constants)]
    node = ir.node(operator, [x, *held], attributes, domain="" if operator == "MatMul" else DOMAIN)
    node.outputs[0].type, node.outputs[0].shape = x.type, ir.Shape([1, "rows"])
    weights = [value for value in held if value is not None]
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=weights, opset_imports={"": 20, DOMAIN: 1}, name="g")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def kernels(rows: int, columns: int) -> dict[str, onnxruntime.InferenceSession]:
    """By name; the first is the one the others are compared with."""
    weight = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    sides = {"fp32 MatMul": session("MatMul", [np.ascontiguousarray(weight.T)])}
    for largest in (32, 128):
        block = block_size(columns, largest)
        blocks = pack(weight, 8, block, symmetric=True)
        shape = {"N": rows, "K": columns, "bits": 8, "block_size": block, "accuracy_level": 4}
        sides[f"int8 MatMulNBits, blocks of {block}"] = session("MatMulNBits", [blocks.packed, blocks.scales], **shape)
    scales = np.abs(weight).max(1) / 127
    integers = np.ascontiguousarray(np.rint(weight / scales[:, None]).astype(np.int8).T)
    sides["int8 DynamicQuantizeMatMul"] = session("DynamicQuantizeMatMul", [integers, scales])
    return sides


def microseconds(runs: onnxruntime.InferenceSession, row: np.ndarray) -> float:
    """CPU time of one product: the mean of some calls."""
    start = time.thread_time()
    for _ in range(CALLS):
        runs.run(None, {"x": row})
    return (time.thread_time() - start) / CALLS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--columns", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()
    sides = kernels(args.rows, args.columns)
    row = np.random.default_rng(1).standard_normal((1, args.columns)).astype(np.float32)
    rounds = [[microseconds(runs, row) for runs in sides.values()] for _ in range(args.rounds)]
    times = dict(zip(sides, zip(*rounds, strict=True), strict=True))
    base = next(iter(times.values()))
    print(f"one row times ({args.columns}, {args.rows}), 1 thread, {args.rounds} interleaved rounds")
    for name, side in times.items():
        usual = statistics.median(side)
        print(
            f"  {name:<34} {min(side):6.0f} us, {min(side) / min(base):4.2f}x the fp32 kernel"
            f"   median {usual:6.0f} us, {usual / statistics.median(base):4.2f}x"
        )


if __name__ == "__main__":
    main()
