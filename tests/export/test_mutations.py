"""Graphs broken on purpose: parity catches each and names the first step and tensor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from typer.testing import CliRunner

from lite_export.cli import app
from lite_export.reference import reference_session
from lite_runtime.bundle import open_bundle, sha256_of
from lite_runtime.ladder import climb
from lite_runtime.manifest import Manifest


def drop_mask(graph: ir.Graph) -> None:
    """Padded words are attended to as if they were real."""
    hidden = [v for v in graph.initializers.values() if v.const_value.size == 1 and v.const_value.numpy() == -1e4]
    assert hidden, "the mask's constant is not in the graph"
    for value in hidden:
        value.const_value = ir.tensor(np.zeros(value.const_value.shape.numpy(), np.float32))


def shift_position(graph: ir.Graph) -> None:
    """Every token stands one place later."""
    position = next(v for v in graph.inputs if v.name == "position")
    uses = list(position.uses())
    one = ir.node("Constant", [], {"value": ir.tensor(np.array([1], np.int64))})
    later = ir.node("Add", [position, one.outputs[0]])
    later.outputs[0].dtype, later.outputs[0].shape = position.dtype, position.shape
    for node, index in uses:
        node.replace_input_with(index, later.outputs[0])
    graph.insert_before(graph[0], [one, later])


def swap_states(graph: ir.Graph) -> None:
    """Keys are returned as values, values as keys."""
    key, value = (next(o for o in graph.outputs if o.name == f"new_self_{p}.0") for p in ("key", "value"))
    key.name, value.name = "swapping", key.name
    key.name = "new_self_value.0"


def stale_window(graph: ir.Graph) -> None:
    """The convolution's window is handed back as it came."""
    _return(graph, "new_conv_window.0", ir.node("Identity", [_input(graph, "conv_window.0")]))


def reversed_window(graph: ir.Graph) -> None:
    """The convolution's window comes back with its oldest frame last."""
    old = next(o for o in graph.outputs if o.name == "new_conv_window.0")
    numbers = [ir.node("Constant", [], {"value": ir.tensor(np.array([n], np.int64))}) for n in (-1, -(2**31), 1, -1)]
    for number in numbers:
        graph.append(number)
    _return(graph, old.name, ir.node("Slice", [old, *(n.outputs[0] for n in numbers)]))


def cross_of_other_layer(graph: ir.Graph) -> None:
    """Each layer reads the other layer's cross keys."""
    first, second = _input(graph, "cross_key.0"), _input(graph, "cross_key.1")
    uses = [(list(first.uses()), second), (list(second.uses()), first)]
    for pairs, other in uses:
        for node, index in pairs:
            node.replace_input_with(index, other)


def transposed_table(graph: ir.Graph) -> None:
    """The tied table is read column by column for the projection: the right shape, the wrong numbers."""
    logits = next(o for o in graph.outputs if o.name == "logits").producer()
    assert logits is not None
    table = logits.inputs[1]
    assert table is not None and table.shape is not None
    turned = ir.node("Transpose", [table], {"perm": [1, 0]})
    shape = ir.node("Constant", [], {"value": ir.tensor(np.array(table.shape.numpy(), np.int64))})
    reshaped = ir.node("Reshape", [turned.outputs[0], shape.outputs[0]])
    logits.replace_input_with(1, reshaped.outputs[0])
    graph.insert_before(graph[0], [turned, shape, reshaped])


def half_overflow(graph: ir.Graph) -> None:
    """A detour through float16, where 65504 is the largest number there is."""
    layer = next(o for o in graph.outputs if o.name == "encoder_layer.0")
    scale = ir.node("Constant", [], {"value": ir.tensor(np.array(1e5, np.float32))})
    large = ir.node("Mul", [layer, scale.outputs[0]])
    half = ir.node("Cast", [large.outputs[0]], {"to": ir.DataType.FLOAT16})
    full = ir.node("Cast", [half.outputs[0]], {"to": ir.DataType.FLOAT})
    small = ir.node("Div", [full.outputs[0], scale.outputs[0]])
    for node, index in list(layer.uses()):
        node.replace_input_with(index, small.outputs[0])
    producer = layer.producer()
    assert producer is not None
    graph.insert_after(producer, [scale, large, half, full, small])
    # The detour reads the layer itself, which the loop above must not have redirected.
    large.replace_input_with(0, layer)
    _return(graph, layer.name or "", ir.node("Identity", [small.outputs[0]]))


def leaking_padding(graph: ir.Graph) -> None:
    """Padded frames are no longer zeroed before a convolution, and leak into their neighbours."""
    muls = [n for n in graph if n.op_type == "Mul" and any(_comes_from_mask(v) for v in n.inputs)]
    assert muls, "no frame is zeroed anywhere"
    for node in muls:
        kept = next(v for v in node.inputs if not _comes_from_mask(v))
        node.outputs[0].replace_all_uses_with(kept)


def _comes_from_mask(value: ir.Value | None) -> bool:
    """Whether a value is the mask itself, as numbers, one per frame."""
    node = value.producer() if value is not None else None
    return node is not None and node.op_type == "Unsqueeze" and _is_cast_of_mask(node.inputs[0])


def _is_cast_of_mask(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    return node is not None and node.op_type == "Cast" and node.inputs[0] is not None and node.inputs[0].name == "mask"


def _input(graph: ir.Graph, name: str) -> ir.Value:
    return next(v for v in graph.inputs if v.name == name)


def _return(graph: ir.Graph, name: str, node: ir.Node) -> None:
    """Let ``node`` produce the output ``name`` instead of what did."""
    index, old = next((i, o) for i, o in enumerate(graph.outputs) if o.name == name)
    new = node.outputs[0]
    new.dtype, new.shape = old.dtype, old.shape
    old.name, new.name = f"old_{name}", name
    graph.append(node)
    graph.outputs[index] = new


def broken(bundle: Path, target: Path, graph: str, mutate: Callable[[ir.Graph], None]) -> Path:
    """A copy of ``bundle`` with one graph mutated, its checksums made right again."""
    shutil.copytree(bundle, target)
    path = target / "onnx" / "fp32" / f"{graph}.onnx"
    model = ir.load(path)
    mutate(model.graph)
    ir.save(model, path)
    text = (target / "manifest.json").read_text()
    manifest = Manifest.model_validate_json(text)
    for form in manifest.formats:
        for entry in form.files:
            old = f'"sha256": "{entry.sha256}",\n          "bytes": {entry.bytes}'
            assert old in text
            changed = target / entry.path
            new = f'"sha256": "{sha256_of(changed)}",\n          "bytes": {changed.stat().st_size}'
            text = text.replace(old, new)
    (target / "manifest.json").write_text(text)
    return target


# graph, breakage, then what parity must say: step and tensor of the first difference, and the first layer that differs.
MUTATIONS = [
    ("encode", drop_mask, (-1, "cross_key.0"), (-1, "encoder_layer.0")),
    ("encode", half_overflow, (-1, "cross_key.0"), (-1, "encoder_layer.0")),
    ("encode", leaking_padding, (-1, "cross_key.0"), (-1, "encoder_layer.0")),
    ("step", shift_position, (0, "self_key.0"), (0, "decoder_layer.0")),
    ("step", swap_states, (0, "self_key.0"), (1, "decoder_layer.0")),
    ("step", stale_window, (0, "conv_window.0"), (1, "decoder_layer.0")),
    ("step", reversed_window, (0, "conv_window.0"), (1, "decoder_layer.0")),
    ("step", cross_of_other_layer, (0, "self_key.1"), (0, "decoder_layer.0")),
    ("step", transposed_table, (0, "logits"), None),
]


@pytest.mark.parametrize(("graph", "mutate", "tensor", "layer"), MUTATIONS, ids=[m[1].__name__ for m in MUTATIONS])
@pytest.mark.parametrize("live", [True, False], ids=["pytorch", "recorded"])
def test_mutation_is_caught_and_named(
    tiny_bundle: Path,
    tiny_folder: Path,
    tmp_path: Path,
    graph: str,
    mutate: Callable[[ir.Graph], None],
    tensor: tuple[int, str],
    layer: tuple[int, str] | None,
    live: bool,
) -> None:
    bundle = open_bundle(broken(tiny_bundle, tmp_path / "broken", graph, mutate))
    report = climb(bundle, reference_session(bundle, tiny_folder) if live else None)
    assert not report.passed
    rungs = {rung.name: rung for rung in report.formats[0].rungs}
    breach = rungs["steps"].breach
    assert breach is not None
    assert (breach.step, breach.tensor) == tensor
    found = rungs["layers"].breach
    assert (found and (found.step, found.tensor)) == layer


def test_another_end_of_sentence_is_caught(tiny_bundle: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """The graphs are right and the manifest's eos is not: only whole translations can show it."""
    target = tmp_path / "broken"
    shutil.copytree(tiny_bundle, target)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["tokens"]["eos"] = manifest["tokens"]["unk"]
    (target / "manifest.json").write_text(json.dumps(manifest))
    bundle = open_bundle(target)
    report = climb(bundle, reference_session(bundle, tiny_folder))
    failed = {rung.name: rung.breach for rung in report.formats[0].rungs if not rung.passed}
    assert list(failed) == ["hypotheses", "one call"]
    assert failed["hypotheses"] is not None
    assert failed["hypotheses"].tensor == "greedy hypothesis 0"


def test_an_untouched_copy_passes(tiny_bundle: Path, tiny_folder: Path, tmp_path: Path) -> None:
    bundle = open_bundle(broken(tiny_bundle, tmp_path / "same", "step", lambda graph: None))
    report = climb(bundle, reference_session(bundle, tiny_folder))
    assert report.passed, report
    assert [r.name for r in report.formats[0].rungs] == [
        "outputs",
        "steps",
        "layers",
        "tokens",
        "hypotheses",
        "one call",
    ]


def test_command_names_the_breach_and_fails(tiny_bundle: Path, tiny_folder: Path, tmp_path: Path) -> None:
    bundle = broken(tiny_bundle, tmp_path / "broken", "step", shift_position)
    report = tmp_path / "report.json"
    result = CliRunner().invoke(app, ["parity", str(bundle), "--model", str(tiny_folder), "--json", str(report)])
    assert result.exit_code == 1
    assert "first at batch 0, step 0, self_key.0" in result.output
    assert '"passed": false' in report.read_text()
