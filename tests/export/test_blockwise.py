"""Integers in blocks: rounding, packing, and that ONNX Runtime's kernels read them as we do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lite_export.blockwise import Blocks, block_size, pack, pack_bits, unpack, unpack_bits

KINDS = [(bits, symmetric) for bits in (8, 4) for symmetric in (True, False)]
weights = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 70)),
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)


@pytest.mark.parametrize(("bits", "symmetric"), KINDS)
@given(weight=weights)
def test_every_weight_is_within_half_a_step(bits: int, symmetric: bool, weight: np.ndarray) -> None:
    blocks = pack(weight, bits, 32, symmetric)
    steps = np.repeat(blocks.scales, 32, axis=1)[:, : weight.shape[1]]
    error = np.abs(unpack(blocks, bits, weight.shape[1]) - weight)
    assert (error <= steps * 0.5 + np.abs(weight) * 1e-5).all()


@pytest.mark.parametrize(("bits", "symmetric"), KINDS)
def test_the_same_as_weight_by_weight(bits: int, symmetric: bool) -> None:
    """The definition, one block after the other in plain Python; zero stays zero."""
    weight = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)
    weight[1, 5] = 0
    wanted = np.zeros_like(weight)
    for row in range(3):
        for first in range(0, 40, 16):
            part = [float(w) for w in weight[row, first : first + 16]]
            if symmetric:
                step, zero = max(map(abs, part)) / (2 ** (bits - 1) - 1), 2 ** (bits - 1)
            else:
                low, high = min(0.0, *part), max(0.0, *part)
                step = (high - low) / (2**bits - 1)
                zero = round(-low / step)
            levels = [min(max(round(w / step) + zero, 0), 2**bits - 1) for w in part]
            wanted[row, first : first + 16] = [(level - zero) * step for level in levels]
    found = unpack(pack(weight, bits, 16, symmetric), bits, 40)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert found[1, 5] == 0


def test_a_block_of_zeros() -> None:
    for bits, symmetric in KINDS:
        assert not unpack(pack(np.zeros((2, 32), np.float32), bits, 16, symmetric), bits, 32).any()


@given(values=hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.integers(0, 15)))
def test_bits_come_back(values: np.ndarray) -> None:
    packed = pack_bits(values, 4)
    assert packed.shape == (len(values), -(-values.shape[1] // 2))
    np.testing.assert_array_equal(unpack_bits(packed, 4)[:, : values.shape[1]], values)


def test_the_first_of_two_is_in_the_lower_half() -> None:
    assert pack_bits(np.array([[1, 2, 3]], np.uint8), 4).tolist() == [[0x21, 0x03]]


@pytest.mark.parametrize(
    ("columns", "largest", "block"),
    [(256, 32, 32), (256, 128, 128), (80, 32, 16), (160, 128, 32), (200, 128, 32), (496, 128, 128), (8, 32, 16)],
)
def test_blocks_store_rows_in_few_bytes(columns: int, largest: int, block: int) -> None:
    assert block_size(columns, largest) == block


@pytest.mark.parametrize(("bits", "symmetric"), KINDS)
@pytest.mark.parametrize(("columns", "block"), [(8, 16), (40, 16), (64, 32), (128, 128)])
def test_the_kernels_read_them_so(tmp_path: Path, bits: int, symmetric: bool, columns: int, block: int) -> None:
    """Products without rounded activations, and lookups; rows that do not fill the last block included."""
    rng = np.random.default_rng(0)
    blocks = pack(rng.standard_normal((24, columns)).astype(np.float32), bits, block, symmetric)
    matrix, x = unpack(blocks, bits, columns), rng.standard_normal((3, columns)).astype(np.float32)
    bias = rng.standard_normal(24).astype(np.float32)
    sizes = {"bits": bits, "block_size": block}
    product = run_one(
        tmp_path,
        "MatMulNBits",
        [x, blocks.packed, *levels(blocks), None, bias],
        {**sizes, "N": 24, "K": columns, "accuracy_level": 1},
    )
    np.testing.assert_allclose(product, x @ matrix.T + bias, atol=1e-5 * columns)
    rows = blocks.packed.reshape(24, -1)
    lookup = run_one(
        tmp_path,
        "GatherBlockQuantized",
        [rows, np.array([[23, 0], [5, 5]]), *levels(blocks)],
        {**sizes, "gather_axis": 0, "quantize_axis": 1},
        fed=1,
    )
    np.testing.assert_array_equal(lookup[..., :columns], matrix[[[23, 0], [5, 5]]])


def levels(blocks: Blocks) -> list[np.ndarray | None]:
    return [blocks.scales, blocks.zero_points]


def run_one(
    folder: Path, kind: str, inputs: list[np.ndarray | None], attributes: dict[str, int], fed: int = 0
) -> np.ndarray:
    """One node; all its inputs but one are constants."""
    tensors = [None if a is None else ir.tensor(a) for a in inputs]
    values = [None if t is None else ir.Value(name=f"i{n}", const_value=t) for n, t in enumerate(tensors)]
    given_, given_tensor = values[fed], tensors[fed]
    assert given_ is not None and given_tensor is not None
    given_.const_value = None
    given_.type, given_.shape = ir.TensorType(given_tensor.dtype), given_tensor.shape
    node = ir.node(kind, values, attributes, domain="com.microsoft")
    node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    constants = [v for n, v in enumerate(values) if v is not None and n != fed]
    graph = ir.Graph(
        [given_],
        node.outputs,
        nodes=[node],
        initializers=constants,
        opset_imports={"": 20, "com.microsoft": 1},
    )
    ir.save(ir.Model(graph, ir_version=10), folder / "one.onnx")
    session = onnxruntime.InferenceSession(folder / "one.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {f"i{fed}": inputs[fed]})[0]
