"""Precisions of the ONNX graphs: nothing left in fp32 by oversight, no byte too many, results close."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from lite_export.blockwise import pack, unpack
from lite_export.errors import ExportError
from lite_export.graphs import state_specs
from lite_export.onnx_export import export_onnx
from lite_export.onnx_quantize import PRECISIONS, RECIPES, quantize
from lite_export.torch_session import TorchSession
from lite_runtime.manifest import FormatEntry
from lite_runtime.onnx_session import OnnxSession
from lite_runtime.recording import make_script, play
from lite_transformer.config import ModelConfig, StackConfig
from lite_transformer.model import LiteTransformer
from reference_models import load_golden
from tiny_models import lively_model, tiny_config


@dataclass(frozen=True)
class Exported:
    """A model in every precision."""

    model: LiteTransformer
    folder: Path
    entries: Mapping[str, FormatEntry]

    def graph(self, precision: str, name: str) -> ir.Graph:
        return ir.load(self.folder / precision / f"{name}.onnx").graph

    def session(self, precision: str) -> OnnxSession:
        return OnnxSession(self.folder, self.entries[precision], threads=1)


def export(model: LiteTransformer, folder: Path) -> Exported:
    entries = {
        precision: FormatEntry(
            format="onnx",
            precision=precision,
            files=(),
            encode=encode,
            step=step,
            state=state_specs(model.config),
        )
        for precision, (encode, step) in export_onnx(model, folder, PRECISIONS).items()
    }
    return Exported(model, folder, entries)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The first layers of the original system's small model: trained, untied, and 40 wide, so that no block is full."""
    deep = load_golden("mt_lightweight").model
    config = deep.config
    assert config.encoder is not None
    first = {"kernels": config.decoder.kernels[:2]}
    sides = {"encoder": config.encoder.model_copy(update=first), "decoder": config.decoder.model_copy(update=first)}
    shallow = LiteTransformer(config.model_copy(update=sides))
    weights = deep.state_dict()
    shallow.load_state_dict({name: weights[name] for name in shallow.state_dict()})
    return export(shallow, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """One layer a side, with one table for all, wide enough that its matrices outweigh what stays fp32."""
    stack = StackConfig(
        kernels=(3,), attention_width=64, attention_heads=2, ffn_width=256, convolution="dynamic", convolution_heads=2
    )
    config = ModelConfig(
        width=128,
        source_vocab=2000,
        target_vocab=2000,
        encoder=stack,
        decoder=stack.model_copy(update={"cross_heads": 2}),
        max_source=32,
        max_target=32,
    )
    return export(lively_model(config), tmp_path_factory.mktemp("wide"))


# What is found, and what is not


def matrix_graph(seed: int = 0) -> ir.Model:
    """Every way an exporter writes a product with a constant, three that are none, and one that must stay."""
    rng = np.random.default_rng(seed)

    def constant(name: str, *shape: int) -> ir.Value:
        array = rng.standard_normal(shape).astype(np.float32)
        return ir.Value(
            name=name,
            const_value=ir.tensor(array, name=name),
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=ir.Shape(shape),
        )

    tokens = ir.Value(name="tokens", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["batch"]))
    table, bias, other = constant("table", 50, 32), constant("bias", 32), constant("other", 32)
    square = [constant(f"square.{n}", 32, 32) for n in range(5)]
    nodes: list[ir.Node] = []

    def add(kind: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        nodes.append(ir.node(kind, inputs, attributes))
        return nodes[-1].outputs[0]

    x = add("Gather", table, tokens)
    x = add("Add", add("MatMul", x, square[0]), bias)
    x = add("Gemm", x, square[1], bias, transB=1)
    x = add("Gemm", x, square[2])
    x = add("Relu", add("MatMul", x, add("Transpose", square[3], perm=[1, 0])))
    scaled = add("Gemm", x, square[4], alpha=0.5)
    x = add("Add", add("MatMul", x, add("Transpose", scaled, perm=[1, 0])), add("ReduceSum", x))
    weights = add("Softmax", x)
    x = add("Gemm", add("Mul", add("MatMul", weights, scaled), other), table, transB=1)
    x.name, x.type, x.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", 50])
    graph = ir.Graph(
        [tokens],
        [x],
        nodes=nodes,
        initializers=[table, bias, other, *square],
        opset_imports={"": 20},
        name="matrices",
    )
    return ir.Model(graph, ir_version=10)


def run(model: ir.Model, path: Path) -> np.ndarray:
    ir.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"tokens": np.array([3, 49, 0])})[0]


# Which way round the graph above holds the matrices that are rewritten: outputs first, or (turned) inputs first.
TURNED = {"table": False, "square.0": True, "square.1": False, "square.2": True, "square.3": False}


def rounded(model: ir.Model, precision: str) -> ir.Model:
    """The same fp32 graph with weights as they are after ``precision``."""
    for name, turned in TURNED.items():
        value = model.graph.initializers[name]
        assert value.const_value is not None
        weight = value.const_value.numpy()
        if precision == "fp16":
            weight = weight.astype(np.float16).astype(np.float32)
        else:
            recipe = RECIPES[precision]
            bits = recipe.table_bits if name == "table" else recipe.bits
            rows = weight.T if turned else weight
            rows = unpack(pack(rows, bits, 32, recipe.symmetric), bits, 32)
            weight = rows.T if turned else rows
        value.const_value = ir.tensor(np.ascontiguousarray(weight), name=name)
    return model


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_every_way_to_write_a_product(tmp_path: Path, precision: str) -> None:
    wanted = run(rounded(matrix_graph(), precision), tmp_path / "rounded.onnx")
    model = matrix_graph()
    done = quantize(model, precision)
    assert (done.products, done.lookups) == (5, 1)
    # No exporter writes a factor there; what is passed over is told.
    assert done.left == ("square.4",)
    # What remains is the rounding of activations.
    worst = np.abs(run(model, tmp_path / "other.onnx") - wanted).max() / np.abs(wanted).max()
    assert worst < (1e-5 if precision == "fp16" else 0.05)
    kinds = Counter(node.op_type for node in model.graph)
    if precision == "fp16":
        # Five matrices, one of them read twice.
        assert kinds["Cast"] == 5
    else:
        assert (kinds["MatMulNBits"], kinds["GatherBlockQuantized"], kinds["Gemm"], kinds["MatMul"]) == (5, 1, 1, 2)
        # The bias of the first product is inside; the other Add adds no constant.
        assert (kinds["Add"], kinds["Transpose"]) == (1, 1)


def test_fp32_changes_nothing() -> None:
    model = matrix_graph()
    before = [node.op_type for node in model.graph]
    done = quantize(model, "fp32")
    assert [node.op_type for node in model.graph] == before
    assert (done.products, done.lookups) == (5, 1)
    assert set(done.left) == {"table", *(f"square.{n}" for n in range(5))}


# Exported models


def floats(graph: ir.Graph) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, value in graph.initializers.items():
        assert value.const_value is not None
        if value.const_value.dtype == ir.DataType.FLOAT:
            yield name, tuple(value.const_value.shape.numpy())


@pytest.mark.parametrize("precision", RECIPES)
@pytest.mark.parametrize("kind", ["trained", "wide"])
def test_every_product_is_quantized(request: pytest.FixtureRequest, kind: str, precision: str) -> None:
    exported: Exported = request.getfixturevalue(kind)
    config = exported.model.config
    assert config.encoder is not None
    # Convolutions that predict their taps have one linear more.
    predicts = config.decoder.convolution == "dynamic"
    # A layer has: query-key-value, its output, convolution in and out, feed-forward twice; a decoder's two for cross.
    expected = {
        "encode": (6 + predicts) * config.encoder.layers + 1,
        "step": (8 + predicts) * config.decoder.layers + 1,
    }
    for name, products in expected.items():
        graph = exported.graph(precision, name)
        kinds = Counter(node.op_type for node in graph)
        assert kinds["MatMulNBits"] == products
        assert kinds["GatherBlockQuantized"] == 1
        assert kinds["Gemm"] == 0
        for node in graph:
            if node.op_type in ("MatMul", "Gather"):
                constant = [v.name for v in node.inputs if v is not None and v.is_initializer() and v.shape.rank() > 1]
                assert constant in ([], ["form.positions.table"]), f"{node.op_type} reads {constant}"
        # Never more nodes than before; the encoder's biases go into their products (predicted taps have none).
        inside = products - predicts * config.encoder.layers if name == "encode" else 0
        # Rows that do not fill their last block are cut after a lookup.
        cut = config.width % 16 != 0
        assert len(graph) == len(exported.graph("fp32", name)) - inside + cut


@pytest.mark.parametrize("precision", ["fp16", *RECIPES])
def test_what_stays_fp32(wide: Exported, precision: str) -> None:
    """Rows (norms, biases, scales), kernels, and one table of positions."""
    width = wide.model.config.width
    for name in ("encode", "step"):
        kept = [
            (n, shape)
            for n, shape in floats(wide.graph(precision, name))
            if np.prod(shape) > 4 * width and not n.endswith(".scales")
        ]
        assert [shape[1] for _, shape in kept] == [width]
        assert kept[0][1][0] <= wide.model.config.max_source + 2


def stored_bytes(model: LiteTransformer, precision: str) -> int:
    """What the weights of a tied model need: matrices at their bits with their scales, all else at 32."""
    matrices = {id(p): p for p in model.parameters() if p.dim() == 2}
    table = model.decoder.embedding.weight
    rest = sum(p.numel() for p in model.parameters() if p.dim() != 2) + model.encoder.positions.table.numel()
    bits = 0.0
    for matrix in matrices.values():
        if precision in RECIPES:
            recipe = RECIPES[precision]
            own = recipe.table_bits if matrix is table else recipe.bits
            # A scale, and a zero point, for each block of 32.
            bits += matrix.numel() * (own + (32 + (0 if recipe.symmetric else own)) / recipe.block)
        else:
            bits += matrix.numel() * {"fp32": 32, "fp16": 16}[precision]
    return int(bits / 8) + rest * 4


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bytes_are_those_of_the_unique_weights(wide: Exported, precision: str) -> None:
    contents: set[bytes] = set()
    outside = 0
    for name in ("encode", "step"):
        for value in wide.graph(precision, name).initializers.values():
            assert value.const_value is not None
            content = value.const_value.tobytes()
            outside += isinstance(value.const_value, ir.ExternalTensor) and content not in contents
            contents.add(content)
    assert sum(map(len, contents)) == pytest.approx(stored_bytes(wide.model, precision), rel=0.02)
    # The files hold these and little else: alignment, and the graphs' structure.
    files = [p.stat().st_size for p in (wide.folder / precision).iterdir()]
    assert sum(files) < sum(map(len, contents)) + 64 * outside + 60_000


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_tied_table_is_stored_once(wide: Exported, precision: str) -> None:
    """Encoder, decoder and projection read the same bytes of the file, and the same scales and zero points."""
    places: dict[tuple[int, int], list[str]] = {}
    for name in ("encode", "step"):
        for value in wide.graph(precision, name).initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and tensor.shape[0] == 2000:
                places.setdefault((tensor.offset, tensor.length), []).append(f"{name} {value.name}")
    readers = sorted(len(names) for names in places.values())
    if precision in RECIPES:
        # Scales and zero points by both graphs; integers by their lookups and the projection.
        assert readers == [*[2] * (1 if RECIPES[precision].symmetric else 2), 3]
    else:
        assert readers == [2]


# Largest difference of any state or logit: about twice what was seen. Every precision exceeds the one before.
BOUNDS = {"exact": 0.0, "fp32": 1e-4, "fp16": 5e-3, "int8": 0.12, "int4": 1.3}


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_trained_model_computes_nearly_the_same(trained: Exported, precision: str, batch: int) -> None:
    """From no past to the end of a decode, one row and five of different lengths."""
    rng = np.random.default_rng(0)
    sources = [[*rng.integers(4, 56, n).tolist(), 2] for n in (9, 1, 22, 4, 7)[:batch]]
    outputs = [rng.integers(4, 64, 12).tolist() for _ in sources]
    script = make_script(sources, outputs, start=2, pad=1)
    worst = 0.0
    reference, session = TorchSession(trained.model), trained.session(precision)
    for expected, actual in zip(play(reference, script), play(session, script), strict=True):
        tensors = {**expected.state, **({} if expected.logits is None else {"logits": expected.logits})}
        found = {**actual.state, "logits": actual.logits}
        for name, tensor in tensors.items():
            assert found[name].shape == tensor.shape
            worst = max(worst, float(np.abs(found[name] - tensor).max(initial=0.0)))
    finer = list(BOUNDS)[list(BOUNDS).index(precision) - 1]
    assert BOUNDS[finer] < worst <= BOUNDS[precision]


def test_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no int3 for ONNX; choose from fp32, fp16, int8, int4"):
        export_onnx(lively_model(tiny_config()), tmp_path, ["fp32", "int3"])
    assert list(tmp_path.iterdir()) == []
