"""One call from text to text: ``translate_text.onnx``, ``translate.onnx`` between SentencePiece's two operators.

1. replacements, then control characters dropped, as ``lite_runtime.tokenizer`` does  2. SentencePiece, eos appended
3. the graph of ``translate.onnx``, its longest output reckoned from the source  4. SentencePiece back, spaces joined

The operators are onnxruntime-extensions'. Its ``fairseq`` switch stays off: it shifts the ids of models whose own
numbering is not fairseq's, and ours is (0 bos, 1 pad, 2 eos, 3 unk in the SentencePiece file itself).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from lite_export.errors import ExportError
from lite_export.onnx_ops import Ops, describe, named, value
from lite_export.onnx_translate import TRANSLATE, read_graph, tidy
from lite_runtime.bundle import BundleError
from lite_runtime.manifest import Decoding, Graph, Limits, Text, TokenIds
from lite_runtime.onnx_graph import text_operators

TRANSLATE_TEXT = "translate_text.onnx"
_EXTENSIONS = "ai.onnx.contrib"
_LATER = ""
# What lite_runtime.tokenizer.without_controls drops: control characters that are no white space.
_CONTROLS = r"[\x00-\x08\x0e-\x1b\x7f-\x{84}\x{86}-\x{9f}]"


def add_translate_text(
    folder: Path, tokenizer: Path, text: Text, tokens: TokenIds, limits: Limits, decoding: Decoding
) -> Graph:
    """Write ``translate_text.onnx`` beside ``translate.onnx``, from which it is made.

    Its input is text (1) string, one sentence; its outputs are translation (1) string and score (1). They are those
    of ``lite_runtime``'s Translator for a sentence without unknown characters; unknown tokens become nothing.

    Args:
        folder: of an ONNX export to which ``add_translate`` has added its graph.
        tokenizer: the SentencePiece file, which is stored in the graph.
        text: the replacements to make.

    Returns:
        the manifest's description, its file relative to ``folder``.

    Raises:
        ExportError: onnxruntime-extensions is not installed, or ``translate.onnx`` or the tokenizer is missing.
    """
    _check_extensions()
    if not tokenizer.is_file():
        raise ExportError(f"no tokenizer at {tokenizer}: a text graph needs the SentencePiece file")
    translate = read_graph(folder / TRANSLATE)
    ops = Ops()
    sentence = value("text", ir.DataType.STRING, [1])
    source = ops("Unsqueeze", _encode(ops, sentence, text), [0])
    feeds = {
        "source": source,
        "mask": ops("GreaterOrEqual", source, 0),
        "max_length": _longest(ops, source, limits, decoding),
    }
    found = ops.take(translate.graph, feeds)
    outputs = (
        named(_decode(ops, found["tokens"], tokens), "translation", ir.DataType.STRING, [1]),
        named(found["scores"], "score", ir.DataType.FLOAT, [1]),
    )
    model = ops.model("translate_text", [sentence], outputs, [translate.opset_imports, {_EXTENSIONS: 1}])
    model.metadata_props.update(translate.metadata_props)
    tidy(model)
    proto = ir.to_proto(model)
    _store(proto, tokenizer.read_bytes())
    (folder / TRANSLATE_TEXT).write_bytes(proto.SerializeToString())
    return describe(model, TRANSLATE_TEXT)


def _check_extensions() -> None:
    try:
        text_operators()
    except BundleError as error:
        raise ExportError(str(error)) from None


def _encode(ops: Ops, sentence: ir.Value, text: Text) -> ir.Value:
    """Token ids of a sentence, eos included, (S) int64."""
    for old, new in text.replacements.items():
        sentence = _replace(ops, sentence, re.escape(old), new)
    sentence = _replace(ops, sentence, _CONTROLS, "")
    # Sampling off (n best, alpha); no bos, eos, not reversed.
    switches = (np.array([0]), np.array([0.0], np.float32), *(np.array([flag]) for flag in (False, True, False, False)))
    ids = ops.several("SentencepieceTokenizer", 3, sentence, *switches, domain=_EXTENSIONS, model=_LATER)[0]
    return ops("Cast", ids, to=ir.DataType.INT64)


def _store(model: onnx.ModelProto, pieces: bytes) -> None:
    """Give both operators the SentencePiece file: raw bytes, which an ONNX string must not be but is here."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.domain == _EXTENSIONS and attribute.name == "model":
                attribute.s = pieces


def _longest(ops: Ops, source: ir.Value, limits: Limits, decoding: Decoding) -> ir.Value:
    """``Decoding.longest`` of the source, (1) int64."""
    length = ops("Cast", ops("Shape", source, start=1, end=2), to=ir.DataType.DOUBLE)
    scaled = ops("Cast", ops("Mul", length, np.array(decoding.max_length_ratio)), to=ir.DataType.INT64)
    return ops("Min", ops("Add", scaled, [decoding.max_length_extra]), [limits.max_target - 1])


def _decode(ops: Ops, found: ir.Value, tokens: TokenIds) -> ir.Value:
    """Text of the only row of target ids, (1) string."""
    row = ops("Squeeze", found, [0])
    nothing = ops("Or", ops("Equal", row, tokens.unk), ops("Equal", row, tokens.eos))
    ids = ops("Compress", row, ops("Not", nothing))
    sentence = ops("SentencepieceDecoder", ids, np.array([False]), domain=_EXTENSIONS, model=_LATER)
    return _replace(ops, _replace(ops, sentence, " {2,}", " "), r"^\s+|\s+$", "")


def _replace(ops: Ops, sentence: ir.Value, pattern: str, rewrite: str) -> ir.Value:
    """Every match of an RE2 pattern by a literal text."""
    literal = rewrite.replace("\\", "\\\\")
    return ops(
        "StringRegexReplace", sentence, np.array([pattern]), np.array([literal]), domain=_EXTENSIONS, global_replace=1
    )
