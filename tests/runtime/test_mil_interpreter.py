"""The interpreter of Core ML packages: its operations against PyTorch's, its programs read back from disk."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lite_runtime.bundle import BundleError
from lite_runtime.mil_interpreter import MilFunction, load_package
from lite_runtime.mil_ops import OPS
from lite_runtime.quiet_coremltools import coremltools, quiet

SPECIFICATION = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")
STEPS = np.float16([0.1, 1.0, 1000.7])
MATRIX = np.random.default_rng(0).normal(size=(24, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A counter that adds what it is given to a state, and a linear layer of 1 to 5 rows."""
    tools, mil = coremltools(), coremltools("converters.mil.mil")
    types = coremltools("converters.mil.mil.types")
    build = mil.Builder

    @build.program(
        input_specs=[
            build.TensorSpec((mil.get_new_symbol(), 16), types.fp32),
            build.StateTensorSpec((3,), types.fp16),
        ],
        opset_version=tools.target.iOS18,
    )
    def program(x: Any, total: Any) -> Any:
        sums = build.add(x=build.read_state(input=total), y=STEPS)
        kept = build.coreml_update_state(state=total, value=sums)
        gate = build.sigmoid(x=build.linear(x=x, weight=MATRIX), name="gate")
        return gate, build.cast(x=kept, dtype="fp32", name="kept")

    with quiet():
        model = tools.convert(
            program,
            inputs=[tools.TensorType(name="x", shape=(tools.RangeDim(1, 5), 16))],
            minimum_deployment_target=tools.target.iOS18,
            compute_precision=tools.precision.FLOAT32,
            skip_model_load=True,
        )
        path = tmp_path_factory.mktemp("mil") / "counter.mlpackage"
        model.save(str(path))
    return path


@pytest.fixture
def function(package: Path) -> MilFunction:
    return load_package(package)["main"]


def rows(count: int) -> dict[str, np.ndarray]:
    return {"x": np.linspace(-1, 1, count * 16, dtype=np.float32).reshape(count, 16)}


def test_weights_are_read_back_and_any_declared_length_runs(function: MilFunction) -> None:
    for count in (1, 5):
        inputs = rows(count)
        wanted = 1 / (1 + np.exp(-inputs["x"] @ MATRIX.T))
        np.testing.assert_allclose(function(inputs, function.new_state())["gate"], wanted, atol=1e-6)


def test_states_are_float16_and_change_in_place(function: MilFunction) -> None:
    state, wanted = function.new_state(), np.zeros(3, np.float16)
    for _ in range(3):
        kept = function(rows(1), state)["kept"]
        wanted = wanted + STEPS
    assert state["total"].dtype == np.float16
    np.testing.assert_array_equal(state["total"], wanted)
    np.testing.assert_array_equal(kept, wanted.astype(np.float32))
    other = function.copy_state(state)
    function(rows(1), state)
    assert (other["total"] != state["total"]).all()
    assert (function.new_state()["total"] == 0).all()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (rows(6), r"input x is float32 \(6, 16\); the package declares float32 \(1 to 5, 16\)"),
        ({"x": np.zeros((1, 16))}, "input x is float64"),
        ({"x": np.zeros(16, np.float32)}, r"input x is float32 \(16,\)"),
        ({}, "takes the inputs x; got nothing"),
        ({**rows(1), "y": np.zeros(1)}, "takes the inputs x; got x, y"),
    ],
)
def test_what_core_ml_would_refuse_is_refused(
    function: MilFunction, inputs: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        function(inputs, function.new_state())


def test_a_run_without_its_state_is_refused(function: MilFunction) -> None:
    with pytest.raises(BundleError, match="keeps the states total: pass what new_state made"):
        function(rows(1))


def test_exact_mode_rounds_float16_results(tmp_path: Path) -> None:
    """2049 is no float16: adding one to 2048 there changes nothing."""
    tools, build = coremltools(), coremltools("converters.mil.mil").Builder

    @build.program(input_specs=[build.TensorSpec((1,))], opset_version=tools.target.iOS18)
    def program(x: Any) -> Any:
        half = build.add(x=build.cast(x=x, dtype="fp16"), y=np.float16(1.0))
        return build.cast(x=half, dtype="fp32", name="sum")

    with quiet():
        tools.convert(program, minimum_deployment_target=tools.target.iOS18, skip_model_load=True).save(
            str(tmp_path / "sum.mlpackage")
        )
    inputs = {"x": np.float32([2048])}
    sums = [load_package(tmp_path / "sum.mlpackage", exact)["main"](inputs)["sum"] for exact in (False, True)]
    assert [float(s[0]) for s in sums] == [2049, 2048]


def copy_of(package: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(package, tmp_path / package.name))


@pytest.mark.parametrize("kind", ["tanh", "softsign"])
def test_an_unknown_operation_is_named(package: Path, tmp_path: Path, kind: str) -> None:
    path = copy_of(package, tmp_path)
    specification = coremltools("models.utils").load_spec(str(path))
    (block,) = specification.mlProgram.functions["main"].block_specializations.values()
    (operation,) = (o for o in block.operations if o.type == "sigmoid")
    operation.type = kind
    (path / SPECIFICATION).write_bytes(specification.SerializeToString())
    with pytest.raises(BundleError, match=f"main uses the operation {kind}, which this interpreter lacks"):
        load_package(path)


def test_an_unknown_argument_is_named(package: Path, tmp_path: Path) -> None:
    """iOS 16 keeps a palette's shape apart; the interpreter knows the palettes of iOS 18."""
    path = tmp_path / "palette.mlpackage"
    tools, build = coremltools(), coremltools("converters.mil.mil").Builder
    optimize = coremltools("optimize.coreml")

    @build.program(input_specs=[build.TensorSpec((1, 16))], opset_version=tools.target.iOS16)
    def program(x: Any) -> Any:
        return build.linear(x=x, weight=MATRIX)

    config = optimize.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0)
    with quiet():
        model = tools.convert(program, minimum_deployment_target=tools.target.iOS16, skip_model_load=True)
        optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=config)).save(str(path))
    with pytest.raises(BundleError, match="constexpr_lut_to_dense with shape is more than this interpreter knows"):
        load_package(path)


@pytest.mark.parametrize("keep", [0, 40, 700])
@pytest.mark.parametrize("file", ["Manifest.json", SPECIFICATION, WEIGHTS], ids=str)
def test_a_cut_file_is_reported(package: Path, tmp_path: Path, file: Path, keep: int) -> None:
    path = copy_of(package, tmp_path)
    content = (path / file).read_bytes()
    assert keep < len(content) or file == "Manifest.json"
    (path / file).write_bytes(content[: min(keep, len(content) - 10)])
    with pytest.raises(BundleError, match=r"counter\.mlpackage is damaged: copy it again"):
        load_package(path)


@pytest.mark.parametrize("file", ["Manifest.json", SPECIFICATION, WEIGHTS], ids=str)
def test_a_missing_file_is_reported(package: Path, tmp_path: Path, file: Path) -> None:
    path = copy_of(package, tmp_path)
    (path / file).unlink()
    with pytest.raises(BundleError, match=r"counter\.mlpackage is damaged: copy it again"):
        load_package(path)


def test_a_missing_package_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no Core ML package at"):
        load_package(tmp_path / "nothing.mlpackage")


def test_missing_coremltools_names_the_fix(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(BundleError, match=r"pip install 'lite-export\[coreml\]'"):
        load_package(package)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def same(actual: np.ndarray, wanted: torch.Tensor) -> None:
    assert actual.dtype == wanted.numpy().dtype
    np.testing.assert_allclose(actual, wanted.numpy(), atol=2e-5, rtol=1e-5)


SIZE = st.integers(1, 4)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_conv_is_pytorchs(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 2))
    groups, inside, outside = data.draw(SIZE), data.draw(SIZE), data.draw(SIZE)
    kernel, steps, spread, edge = (data.draw(st.tuples(*[st.integers(1, 3)] * rank)) for _ in range(4))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, spread, strict=True)]
    x = noise(1, 2, groups * inside, *(n + data.draw(SIZE) for n in reach))
    weight, bias = noise(2, groups * outside, inside, *kernel), noise(3, groups * outside)
    pad = np.repeat(edge, 2)
    actual = OPS["conv"](x, weight, bias, strides=steps, pad_type="custom", pad=pad, dilations=spread, groups=groups)
    convolve = F.conv1d if rank == 1 else F.conv2d
    same(actual, convolve(*map(torch.from_numpy, (x, weight, bias)), steps, edge, spread, groups))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_slices_are_pytorchs(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    bounds = [sorted(data.draw(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)))) for n in sizes]
    stride = [data.draw(st.integers(1, 2)) for _ in sizes]
    masks = [[data.draw(st.booleans()) for _ in sizes] for _ in range(3)]
    x = noise(0, *sizes)
    begin, end = (np.int32(b) for b in zip(*((low, high + 1) for low, high in bounds), strict=True))
    actual = OPS["slice_by_index"](x, begin, end, stride, *masks)
    wanted, axis = torch.from_numpy(x), 0
    for (low, high), step, first, last, drop in zip(bounds, stride, *masks, strict=True):
        if drop:
            wanted = wanted.select(axis, low)
            continue
        length = wanted.shape[axis]
        wanted = wanted.index_select(axis, torch.arange(0 if first else low, length if last else high + 1, step))
        axis += 1
    same(np.asarray(actual), wanted)


@settings(max_examples=20, deadline=None)
@given(st.lists(SIZE, min_size=2, max_size=4), st.booleans(), st.booleans())
def test_products_and_norms_are_pytorchs(shape: list[int], flip_x: bool, flip_y: bool) -> None:
    x, y = noise(0, *shape), noise(1, *shape[:-2], shape[-1], 3)
    a, b = (v.swapaxes(-1, -2) if flip else v for v, flip in ((x, flip_x), (y, flip_y)))
    same(OPS["matmul"](a, b, flip_x, flip_y), torch.from_numpy(x) @ torch.from_numpy(y))
    t, gamma, beta = torch.from_numpy(x), noise(2, shape[-1]), noise(3, shape[-1])
    normal = OPS["layer_norm"](x, np.int32([-1]), gamma, beta, np.array(1e-5, np.float32))
    same(normal, F.layer_norm(t, shape[-1:], torch.from_numpy(gamma), torch.from_numpy(beta)))
    same(OPS["layer_norm"](x, np.int32([-1])), F.layer_norm(t, shape[-1:]))
    for axis in range(-len(shape), len(shape)):
        same(OPS["softmax"](x * 50, axis), (t * 50).softmax(axis))
    same(OPS["sigmoid"](x * 100), (t * 100).sigmoid())
    same(OPS["relu"](x), t.relu())
    same(OPS["clip"](x, -0.5, 0.5), t.clamp(-0.5, 0.5))


@settings(max_examples=20, deadline=None)
@given(st.lists(SIZE, min_size=1, max_size=3), st.data())
def test_shapes_are_moved_as_pytorch_does(shape: list[int], data: st.DataObject) -> None:
    x = noise(0, *shape)
    t, axis = torch.from_numpy(x), data.draw(st.integers(-len(shape), len(shape) - 1))
    perm = data.draw(st.permutations(range(len(shape))))
    same(OPS["transpose"](x, np.int32(perm)), t.permute(perm))
    same(OPS["reshape"](x, np.int32([0, -1])), t.reshape(shape[0], -1))
    same(OPS["squeeze"](OPS["expand_dims"](x, np.int32([0, 2])), np.int32([0, 2])), t)
    same(OPS["concat"]([x, x, x[..., :0]] if axis in (-1, len(shape) - 1) else [x, x], axis), torch.cat([t, t], axis))
    same(OPS["stack"]([x, x], axis), torch.stack([t, t], axis))
    same(OPS["tile"](x, np.int32(shape)), t.repeat(shape))
    same(OPS["pad"](x, np.int32([1, 2]), "constant", 7.0), F.pad(t, (1, 2), value=7.0))
    parts = OPS["split"](x, axis, split_sizes=np.int32([1, shape[axis] - 1]))
    for part, wanted in zip(parts, t.split([1, shape[axis] - 1], axis), strict=True):
        same(part, wanted)
    assert len(OPS["split"](x, axis, num_splits=shape[axis])) == shape[axis]
    same(OPS["cumsum"](x, axis), t.cumsum(axis))
    backwards = OPS["cumsum"](x, axis, exclusive=True, reverse=True)
    same(backwards, t.flip(axis).cumsum(axis).flip(axis) - t)
    rows = np.int16([shape[axis] - 1, 0, -1])
    same(OPS["gather"](x, rows, axis), t.index_select(axis, torch.tensor([shape[axis] - 1, 0, shape[axis] - 1])))
    assert OPS["shape"](x).tolist() == shape
    start, end, step = (np.array(n, np.int32) for n in (2, 9, 3))
    same(OPS["range_1d"](start, end, step), torch.arange(2, 9, 3, dtype=torch.int32))
    same(OPS["fill_like"](x, np.array(3, np.float32)), torch.full_like(t, 3))


def test_what_operations_lack_is_named() -> None:
    x, weight = noise(0, 1, 1, 4), noise(1, 1, 1, 3)
    with pytest.raises(BundleError, match="lacks conv with pad_type same"):
        OPS["conv"](x, weight, pad_type="same")
    with pytest.raises(BundleError, match="lacks pad with mode reflect"):
        OPS["pad"](x, np.int32([1, 1]), "reflect")
    with pytest.raises(BundleError, match="lacks gather with batch_dims 1"):
        OPS["gather"](x, np.int32([0]), 1, 1)


def test_an_index_beyond_the_table_raises() -> None:
    with pytest.raises(IndexError):
        OPS["gather"](noise(0, 4, 2), np.int32([4]))


@pytest.mark.parametrize(
    ("kind", "options", "wanted"),
    [
        ("int8", {"granularity": "per_channel"}, "constexpr_blockwise_shift_scale"),
        ("int4", {"granularity": "per_block", "block_size": 8}, "constexpr_blockwise_shift_scale"),
        ("uint4", {"granularity": "per_block", "block_size": 8, "mode": "linear"}, "constexpr_blockwise_shift_scale"),
        ("palette", {}, "constexpr_lut_to_dense"),
    ],
)
def test_compressed_weights_decode_as_coremltools_decodes_them(
    tmp_path: Path, kind: str, options: dict[str, Any], wanted: str
) -> None:
    tools, build = coremltools(), coremltools("converters.mil.mil").Builder
    optimize = coremltools("optimize.coreml")

    @build.program(input_specs=[build.TensorSpec((1, 16))], opset_version=tools.target.iOS18)
    def program(x: Any) -> Any:
        return build.linear(x=x, weight=MATRIX, name="product")

    with quiet():
        model = tools.convert(
            program,
            minimum_deployment_target=tools.target.iOS18,
            compute_precision=tools.precision.FLOAT32,
            skip_model_load=True,
        )
        if kind == "palette":
            config = optimize.OpPalettizerConfig(
                nbits=4, mode="uniform", granularity="per_grouped_channel", group_size=8, weight_threshold=0
            )
            model = optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=config))
        else:
            config = optimize.OpLinearQuantizerConfig(dtype=kind, weight_threshold=0, **options)
            model = optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=config))
        path = tmp_path / "small.mlpackage"
        model.save(str(path))
        kinds = [o.op_type for o in model._mil_program.functions["main"].operations]
        decompressed = optimize.decompress_weights(model)
        decompressed.save(str(tmp_path / "plain.mlpackage"))
    assert wanted in kinds
    inputs = {"x": np.eye(16, dtype=np.float32)[3:4]}
    compressed, plain = (load_package(tmp_path / f"{n}.mlpackage")["main"](inputs) for n in ("small", "plain"))
    np.testing.assert_allclose(compressed["product"], plain["product"], atol=1e-6)
    np.testing.assert_allclose(compressed["product"][0], MATRIX[:, 3], atol=0.3)
    assert (compressed["product"][0] != MATRIX[:, 3]).any()
