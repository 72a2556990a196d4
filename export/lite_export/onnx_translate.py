"""One call from source ids to target ids: ``translate.onnx``, encoder and search in one graph.

1. read ``encode.onnx`` and ``step.onnx`` back, of whatever precision  2. repeat the encoder's state for the beam
3. put the step graph and one position of the search into a ``Loop`` body  4. move what no position changes out of
the loop  5. save beside them: the weights stay in the file all three share
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass, RemoveUnusedNodesPass

from lite_export.errors import ExportError
from lite_export.onnx_ops import Ops, describe, named, value
from lite_export.onnx_search import Frame, Hypotheses, Rules, advance, finish, frame, next_tokens, start
from lite_runtime.manifest import Decoding, Graph, Limits, StateTensor, TokenIds

ENCODE, STEP, TRANSLATE = "encode.onnx", "step.onnx", "translate.onnx"


def add_translate(
    folder: Path,
    state: Sequence[StateTensor],
    tokens: TokenIds,
    limits: Limits,
    decoding: Decoding,
    beam: int | None = None,
    name: str = TRANSLATE,
) -> Graph:
    """Write ``translate.onnx`` beside ``encode.onnx`` and ``step.onnx``, which stay as they are.

    Its inputs are source (B, S) int64 with eos, mask (B, S) bool, True at real tokens, and max_length (1) or (B)
    int64, the most tokens before eos. Its outputs are tokens (B, T) int64, the best hypotheses with eos, padded,
    and scores (B). They are those of ``lite_runtime.search``.

    Args:
        folder: of an ONNX export, of any precision.
        state: what its step carries.
        beam: hypotheses a sentence; 1 for greedy search, None for the decoding's own.

    Returns:
        the manifest's description, its file relative to ``folder``.

    Raises:
        ExportError: the folder lacks a graph, one is not as ``state`` tells, or the search cannot run as asked.
    """
    encode, step = read_graph(folder / ENCODE), read_graph(folder / STEP)
    vocabulary = _check(encode, step, state)
    rules = Rules(tokens, limits, decoding, vocabulary, decoding.beam if beam is None else beam)
    _check_rules(rules)
    inputs = (
        value("source", ir.DataType.INT64, ["batch", "source"]),
        value("mask", ir.DataType.BOOL, ["batch", "source"]),
        value("max_length", ir.DataType.INT64, ["limits"]),
    )
    ops = Ops()
    encoded = ops.take(encode.graph, {"source": inputs[0], "mask": inputs[1]})
    sentences = ops("Shape", inputs[0], start=0, end=1)
    fixed = frame(ops, rules, sentences, inputs[2])
    begin = start(ops, rules, sentences), _states(ops, rules, state, encoded, sentences)
    end = _loop(ops, rules, fixed, step.graph, state, *begin)
    outputs = (
        named(finish(ops, rules, end), "tokens", ir.DataType.INT64, ["batch", "target"]),
        named(end.score, "scores", ir.DataType.FLOAT, ["batch"]),
    )
    model = ops.model("translate", inputs, outputs, [encode.opset_imports, step.opset_imports])
    model.metadata_props.update(beam=str(rules.beam), length_penalty=str(decoding.length_penalty))
    tidy(model)
    ir.save(model, folder / name)
    return describe(model, name)


def read_graph(path: Path) -> ir.Model:
    """An ONNX file, its weights left where they are.

    Raises:
        ExportError: there is none.
    """
    if not path.is_file():
        raise ExportError(f"{path} is missing: export the model to ONNX first")
    return ir.load(path)


def tidy(model: ir.Model) -> None:
    """Finish a model put together from parts: nothing unused, no name twice."""
    RemoveUnusedNodesPass()(model)
    NameFixPass()(model)


def _check_rules(rules: Rules) -> None:
    if rules.beam < 1:
        raise ExportError(f"beam is {rules.beam}: use 1 (greedy) or more")
    for name, token in rules.tokens:
        if not 0 <= token < rules.vocabulary:
            raise ExportError(f"{name} id {token} is outside the vocabulary of {rules.vocabulary}: mend the config")


def _check(encode: ir.Model, step: ir.Model, state: Sequence[StateTensor]) -> int:
    """That the graphs are those of ``state``; the size of the vocabulary."""
    given = {v.name: v for v in step.graph.outputs}
    wanted = {"tokens", "position", *(s.name for s in state)}
    _compare(STEP, {v.name for v in step.graph.inputs}, wanted)
    _compare(STEP, given, {"logits", *(s.output for s in state if s.output)}, extra=True)
    _compare(ENCODE, {v.name for v in encode.graph.inputs}, {"source", "mask"})
    _compare(ENCODE, {v.name for v in encode.graph.outputs}, {s.name for s in state if s.initial is None}, extra=True)
    shape = given["logits"].shape
    assert shape is not None and isinstance(shape[-1], int)
    return shape[-1]


def _compare(file: str, found: Iterable[str | None], wanted: set[str], extra: bool = False) -> None:
    """``extra`` allows more than is wanted: layer outputs, say."""
    names = {str(name) for name in found}
    wrong = wanted - names if extra else wanted ^ names
    if wrong:
        raise ExportError(f"{file} and the state do not agree on {', '.join(sorted(wrong))}: export both anew")


def _states(
    ops: Ops, rules: Rules, specs: Sequence[StateTensor], encoded: dict[str, ir.Value], sentences: ir.Value
) -> dict[str, ir.Value]:
    """Every state tensor before the first token, one row a hypothesis."""
    rows = ops("Mul", sentences, [rules.beam])
    repeated = ops("Div", ops("Range", 0, ops("Squeeze", rows), 1), rules.beam)
    states = {}
    for spec in specs:
        if spec.initial is None:
            once = encoded[spec.name]
            states[spec.name] = once if rules.beam == 1 else ops("Gather", once, repeated, axis=spec.batch_axis)
        else:
            shape = ops("Concat", *(rows if d == "batch" else [int(d)] for d in spec.shape), axis=0)
            fill = ir.tensor(np.array([spec.initial], spec.dtype))
            states[spec.name] = ops("ConstantOfShape", shape, value=fill)
    return states


def _loop(
    ops: Ops,
    rules: Rules,
    fixed: Frame,
    step: ir.Graph,
    specs: Sequence[StateTensor],
    begin: Hypotheses,
    states: dict[str, ir.Value],
) -> Hypotheses:
    """The ``Loop``: one step and one position of the search a turn, until every sentence is done."""
    changing = [spec for spec in specs if spec.output]
    position, going = value("position", ir.DataType.INT64, []), value("going", ir.DataType.BOOL, [])
    now = Hypotheses(**{name: value(name, *_CARRIED[name]) for name in Hypotheses._fields})
    held = {s.name: value(s.name, ir.DataType.from_numpy(np.dtype(s.dtype)), [None] * len(s.shape)) for s in changing}

    body = ops.inner()
    feeds = {"tokens": next_tokens(body, now), "position": body("Reshape", position, [1]), **states, **held}
    given = body.take(step, feeds)
    # The step's own notes on shapes call its rows a batch, which here are sentences.
    for note in (v for node in body.nodes for v in node.outputs):
        note.shape = None
    after, rows = advance(body, rules, fixed, now, position, given["logits"])
    new = [given[str(s.output)] for s in changing]
    if rules.beam > 1:
        new = [body("Gather", t, rows, axis=s.batch_axis) for t, s in zip(new, changing, strict=True)]
    all_done = body("ReduceMin", body("Cast", after.done, to=ir.DataType.INT64), keepdims=0)
    going_on = body("Equal", all_done, 0)
    _move_out(body, ops, {position, going, *now, *held.values()})
    graph = body.graph("position", [position, going, *now, *held.values()], [going_on, *after, *new])
    carried = [*begin, *(states[s.name] for s in changing)]
    results = ops.several("Loop", len(carried), None, True, *carried, body=graph)
    return Hypotheses(*results[: len(begin)])


# Type and rank of what the search carries; sizes grow from turn to turn.
_CARRIED: dict[str, tuple[ir.DataType, list[None]]] = {
    "history": (ir.DataType.INT64, [None, None]),
    "totals": (ir.DataType.FLOAT, [None, None]),
    "best": (ir.DataType.INT64, [None, None]),
    "score": (ir.DataType.FLOAT, [None]),
    "found": (ir.DataType.INT64, [None]),
    "done": (ir.DataType.BOOL, [None]),
}


def _move_out(body: Ops, ops: Ops, changing: set[ir.Value]) -> None:
    """Run once, before the loop, what depends on nothing that changes: transposed cross keys, for one."""
    inside = []
    for node in body.nodes:
        if changing.isdisjoint(v for v in node.inputs if v is not None):
            ops.nodes.append(node)
        else:
            inside.append(node)
            changing.update(node.outputs)
    body.nodes = inside
