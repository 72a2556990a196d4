""".ort files hold each weight once, run like the files they were made from, and list their operators."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx_ir as ir
import pytest

from lite_export.errors import ExportError
from lite_export.onnx_ort import to_ort
from lite_runtime.onnx_translate import OneGraph
from lite_runtime.recording import make_script, play
from one_graph import Exported, assert_same, copy_of, quantized

PRECISIONS = ("fp32", "int8")


@pytest.fixture(scope="module")
def converted(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """By precision, a folder with translate.onnx and all .ort files."""
    folder = tmp_path_factory.mktemp("ort")
    fp32 = copy_of(tiny_bundle, folder / "fp32")
    there = {"fp32": fp32, "int8": quantized(fp32, folder / "int8", "int8")}
    for exported in there.values():
        exported.one_graph(4)
        names = [path.name for path in to_ort(exported.folder)]
        assert names == ["encode.ort", "step.ort", "translate.ort", "required_operators.config"]
    return there


@pytest.mark.parametrize("precision", PRECISIONS)
def test_steps_are_those_of_the_onnx_files(converted: dict[str, Exported], precision: str) -> None:
    exported = converted[precision]
    sentences = exported.golden[:3]
    script = make_script([s.source for s in sentences], [s.greedy.tokens for s in sentences], start=2, pad=1)
    tolerance = 1e-5 if precision == "fp32" else 5e-2
    for expected, actual in zip(play(exported.session(), script), play(exported.session("ort"), script), strict=True):
        for name, tensor in expected.state.items():
            assert abs(actual.state[name] - tensor).max(initial=0) < tolerance, (expected.step, name)
        if expected.logits is not None and actual.logits is not None:
            assert abs(actual.logits - expected.logits).max() < tolerance


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_graph_is_that_of_the_onnx_file(converted: dict[str, Exported], precision: str) -> None:
    exported = converted[precision]
    sources = [sentence.source for sentence in exported.golden]
    longest = exported.usual_lengths(sources)
    graphs = [
        OneGraph(exported.folder / name, exported.tokens, exported.limits, 1)
        for name in ("translate.ort", "translate.onnx")
    ]
    found, wanted = (graph.translate(sources, longest) for graph in graphs)
    assert_same(found, wanted, tolerance=2e-5 if precision == "fp32" else 5e-3)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["encode", "step", "translate"])
def test_every_weight_is_inside_once(converted: dict[str, Exported], precision: str, name: str) -> None:
    """The tied table above all; what a file holds besides is bounded by its nodes."""
    folder = converted[precision].folder
    content = (folder / f"{name}.ort").read_bytes()
    graph = ir.load(folder / f"{name}.onnx").graph
    weights = {v.const_value.tobytes() for v in graph.initializers.values() if v.const_value is not None}
    large = [weight for weight in weights if len(weight) >= 256]
    assert len(large) > 5
    # One may be part of another: a short table of positions of a long one.
    assert [content.count(w) for w in large] == [sum(other.count(w) for other in large) for w in large]
    nodes = sum(1 for _ in graph.all_nodes())
    assert len(content) < sum(map(len, weights)) + 800 * nodes


def test_required_operators(converted: dict[str, Exported]) -> None:
    """For a reduced build: every operator of the graphs with its version, and no path of this machine."""
    lines = (converted["int8"].folder / "required_operators.config").read_text().splitlines()
    assert lines[:4] == ["# Generated from model/s:", "# - encode.ort", "# - step.ort", "# - translate.ort"]
    listed = {name for line in lines[4:] for name in line.split(";")[2].split(",")}
    assert {"Loop", "TopK", "LogSoftmax", "MatMulNBits", "GatherBlockQuantized", "Conv"} <= listed
    assert "com.microsoft;1;GatherBlockQuantized,MatMulNBits" in lines
    fp32 = (converted["fp32"].folder / "required_operators.config").read_text()
    # Fused operators of the exporting processor would tie the files to it.
    assert "com.microsoft" not in fp32


def test_translate_is_optional_and_logging_is_left_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    exported = copy_of(tiny_bundle, tmp_path / "onnx")
    handlers = logging.getLogger().handlers[:]
    (exported.folder / "translate.onnx").unlink()
    assert [path.name for path in to_ort(exported.folder)][:-1] == ["encode.ort", "step.ort"]
    assert logging.getLogger().handlers == handlers
    assert logging.root.manager.disable == logging.NOTSET


def test_errors(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"encode\.onnx is missing"):
        to_ort(tmp_path)
    exported = copy_of(tiny_bundle, tmp_path / "onnx")
    step = ir.load(exported.folder / "step.onnx")
    next(node for node in step.graph if node.op_type == "Gemm").op_type = "Gems"
    ir.save(step, exported.folder / "step.onnx")
    with pytest.raises(ExportError, match=r"cannot convert step\.onnx: .*Gems"):
        to_ort(exported.folder)
