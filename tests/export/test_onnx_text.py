"""translate_text.onnx: a sentence in, the Translator's sentence out."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from lite_export.errors import ExportError
from lite_export.loading import SENTENCES, shipped_model
from lite_export.onnx_text import add_translate_text
from lite_export.onnx_translate import add_translate
from lite_runtime.bundle import BundleError
from lite_runtime.manifest import Text
from lite_runtime.onnx_translate import OneTextGraph
from lite_runtime.session import SessionError
from lite_runtime.translator import Translator
from one_graph import Exported, copy_of, untied

ODD = (
    "It’s “fine”, isn’t it?",
    "  A\u00a0sen\u00adtence \x01with\x9f con\u202ftrols \x85 and   spaces.  ",
    "Yes",
    "A (1+1) test\\path $x ^y",
)


@pytest.fixture(scope="module")
def exported(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return untied(copy_of(tiny_bundle, tmp_path_factory.mktemp("text") / "onnx"))


def add(exported: Exported, text: Text) -> OneTextGraph:
    manifest = exported.bundle.manifest
    settings = exported.tokens, exported.limits, exported.decoding
    add_translate(exported.folder, exported.entry.state, *settings)
    graph = add_translate_text(exported.folder, exported.bundle.folder / manifest.text.tokenizer, text, *settings)
    assert [(i.name, i.dtype, i.shape) for i in graph.inputs] == [("text", "string", (1,))]
    assert [(o.name, o.dtype, o.shape) for o in graph.outputs] == [
        ("translation", "string", (1,)),
        ("score", "float32", (1,)),
    ]
    return OneTextGraph(exported.folder / graph.file, 1)


def test_sentences_are_the_translators(exported: Exported) -> None:
    graph = add(exported, exported.bundle.manifest.text)
    tokenizer = exported.bundle.tokenizer()
    settings = exported.tokens, exported.limits, exported.decoding
    translator = Translator(exported.session(), tokenizer, *settings)
    known = [s for s in (shipped_model() / SENTENCES).read_text("utf8").splitlines() if len(s) < 90]
    compared = 0
    for sentence in (*known, *ODD):
        wanted = translator.translate([sentence])[0]
        if tokenizer.encode(sentence).unknowns or len(wanted.sentences) > 1:
            continue
        translation, score = graph.translate(sentence)
        assert translation == wanted.text.strip(), sentence
        assert score == pytest.approx(wanted.score, abs=2e-5)
        compared += 1
    assert compared > 20


def test_too_long_a_sentence_is_refused(exported: Exported) -> None:
    graph = add(exported, Text())
    with pytest.raises(SessionError, match="ONNX Runtime"):
        graph.translate("word " * exported.limits.max_source)


def test_replacements_are_literal_and_in_order(exported: Exported) -> None:
    """What stands for something else in a pattern or a rewrite is a plain character here."""
    text = Text(replacements={"a.b": "c", "c+": "\\1 (d)", "$": "", "(d)": "e"})
    graph = add(exported, text)
    rewritten = "a.b+ axb $(d)"
    for old, new in text.replacements.items():
        rewritten = rewritten.replace(old, new)
    assert rewritten == "\\1 e axb e"
    plain = add(exported, Text(replacements={}))
    assert graph.translate("a.b+ axb $(d)") == plain.translate(rewritten)
    assert graph.translate("a.b+ axb $(d)") != plain.translate("a.b+ axb $(d)")


def test_it_says_how_it_searches_and_shares_the_weights(exported: Exported) -> None:
    add(exported, exported.bundle.manifest.text)
    translate, text = (ir.load(exported.folder / f"{name}.onnx") for name in ("translate", "translate_text"))
    assert text.metadata_props == translate.metadata_props
    assert weights(text) == weights(translate)


def weights(model: ir.Model) -> set[tuple[str, int | None, int | None]]:
    tensors = (v.const_value for v in model.graph.initializers.values())
    return {(str(t.location), t.offset, t.length) for t in tensors if isinstance(t, ir.ExternalTensor)}


def test_missing_package_or_file(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Text(), exported.tokens, exported.limits, exported.decoding
    tokenizer = exported.bundle.folder / "tokenizer.model"
    with pytest.raises(ExportError, match=r"translate\.onnx is missing"):
        add_translate_text(tmp_path, tokenizer, *settings)
    with pytest.raises(ExportError, match="no tokenizer at"):
        add_translate_text(exported.folder, tmp_path / "tokenizer.model", *settings)

    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("onnxruntime_extensions"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ExportError, match="pip install onnxruntime-extensions"):
        add_translate_text(exported.folder, tokenizer, *settings)
    with pytest.raises(BundleError, match="pip install onnxruntime-extensions"):
        OneTextGraph(exported.folder / "translate_text.onnx")
