"""translate.onnx gives the best hypothesis of lite_runtime.search, token for token."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from lite_export.errors import ExportError
from lite_export.onnx_translate import add_translate
from lite_runtime.bundle import BundleError
from lite_runtime.manifest import Decoding, TokenIds
from lite_runtime.onnx_graph import load_graph
from lite_runtime.onnx_translate import OneGraph
from lite_runtime.search import SearchError
from one_graph import Exported, assert_same, copy_of, quantized, random_sources, untied


@pytest.fixture(scope="module")
def exported(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return untied(copy_of(tiny_bundle, tmp_path_factory.mktemp("one") / "onnx"))


@pytest.fixture(scope="module")
def early(exported: Exported) -> TokenIds:
    """Other special ids: an eos the model often writes, so that outputs end, and a pad it would write."""
    sources = [sentence.source for sentence in exported.golden]
    written = Counter(t for best in exported.searched(sources, [30] * len(sources), 1) for t in best.tokens[:-1])
    (pad, _), _, (eos, _) = written.most_common(3)
    return exported.tokens.model_copy(update={"eos": eos, "pad": pad})


@pytest.mark.parametrize("beam", [1, 4])
def test_golden_sentences(exported: Exported, beam: int) -> None:
    sources = [sentence.source for sentence in exported.golden]
    longest = exported.usual_lengths(sources)
    graph = exported.one_graph(beam)
    wanted = exported.searched(sources, longest, beam)
    assert_same(graph.translate(sources, longest), wanted)
    assert_same([graph.translate([s], [n])[0] for s, n in zip(sources, longest, strict=True)], wanted)
    assert len({token for best in wanted for token in best.tokens}) > 10


@pytest.mark.parametrize(
    ("beam", "ends", "decoding"),
    [
        (1, "late", Decoding()),
        (4, "late", Decoding()),
        (1, "early", Decoding()),
        (4, "early", Decoding()),
        (4, "early", Decoding(length_penalty=0.4)),
        (5, "late", Decoding(length_penalty=2.0, no_repeat_ngram=3)),
        (3, "late", Decoding(length_penalty=-0.5, no_repeat_ngram=1)),
        (2, "early", Decoding(length_penalty=0.0, no_repeat_ngram=2)),
    ],
)
def test_random_sentences(exported: Exported, early: TokenIds, beam: int, ends: str, decoding: Decoding) -> None:
    """Batches of one to four, sources of one token to the most, outputs cut short or run to their end."""
    tokens = early if ends == "early" else exported.tokens
    graph = exported.one_graph(beam, tokens, decoding)
    rng = np.random.default_rng(beam)
    ended = 0
    for batch in (1, 4, 3, 2):
        lengths = rng.choice([1, 2, 7, 19, exported.limits.max_source], batch).tolist()
        sources = random_sources(rng, lengths, tokens, exported.bundle.manifest.vocabulary)
        longest = rng.choice([1, 2, 9, exported.limits.max_target - 1], batch).tolist()
        found = graph.translate(sources, longest)
        assert_same(found, exported.searched(sources, longest, beam, tokens, decoding))
        ended += sum(len(best.tokens) <= most for best, most in zip(found, longest, strict=True))
    if ends == "early":
        assert ended > 2


def test_limits_are_kept(exported: Exported) -> None:
    """Where the model does not end by itself: eos comes at the limit, or where the position table ends."""
    graph = exported.one_graph(1)
    (source,) = random_sources(np.random.default_rng(1), [5], exported.tokens, 160)
    for asked, given in ((1, 1), (6, 6), (10_000, exported.limits.max_target - 1)):
        (best,) = graph.translate([source], [asked])
        assert len(best.tokens) == given + 1
        assert best.tokens[-1] == exported.tokens.eos


def test_finished_rows_are_padded(exported: Exported) -> None:
    exported.one_graph(1)
    session = load_graph(exported.folder / "translate.onnx", 1)
    feeds = {"source": np.array([[5, 6, 2], [7, 2, 1]]), "mask": np.array([[1, 1, 1], [1, 1, 0]], bool)}
    tokens, scores = session.run(None, {**feeds, "max_length": np.array([2, 5])})
    assert tokens.shape == (2, 6)
    assert tokens[0, 2:].tolist() == [2, 1, 1, 1]
    assert scores.dtype == np.float32
    # One limit is enough for all.
    alike, _ = session.run(None, {**feeds, "max_length": np.array([5])})
    assert alike[:, 5].tolist() == [2, 2]


@pytest.mark.parametrize("precision", ["int8", "int4", "fp16"])
def test_quantized_graphs(tiny_bundle: Path, tmp_path: Path, precision: str) -> None:
    other = quantized(copy_of(tiny_bundle, tmp_path / "fp32"), tmp_path / precision, precision)
    sources = [sentence.source for sentence in other.golden]
    longest = other.usual_lengths(sources)
    # ONNX Runtime fuses layer norms where no layer is an output: another last digit, which 8 bits may round away.
    assert_same(other.one_graph(1).translate(sources, longest), other.searched(sources, longest, 1), tolerance=5e-3)


def test_weights_are_shared(exported: Exported) -> None:
    """Small, nothing copied: every weight is a place of the file that encode and step use."""
    before = (exported.folder / "weights.bin").read_bytes()
    exported.one_graph(4)
    file = exported.folder / "translate.onnx"
    assert file.stat().st_size < 300_000
    assert (exported.folder / "weights.bin").read_bytes() == before
    used = [t for name in ("encode", "step") for t in external(exported.folder / f"{name}.onnx")]
    mine = external(file)
    assert set(mine) == set(used)
    assert len(mine) == len(set(mine))


def external(path: Path) -> list[tuple[str, int | None, int | None]]:
    model = ir.load(path)
    tensors = [v.const_value for v in model.graph.initializers.values()]
    assert all(t is not None and (isinstance(t, ir.ExternalTensor) or t.nbytes < 1024) for t in tensors)
    return [(str(t.location), t.offset, t.length) for t in tensors if isinstance(t, ir.ExternalTensor)]


def test_file_is_valid_and_says_how_it_searches(exported: Exported) -> None:
    graph = add_translate(
        exported.folder, exported.entry.state, exported.tokens, exported.limits, exported.decoding, 3, "three.onnx"
    )
    assert graph.file == "three.onnx"
    assert {i.name: i.shape for i in graph.inputs} == {
        "source": ("batch", "source"),
        "mask": ("batch", "source"),
        "max_length": ("limits",),
    }
    assert [(o.name, o.dtype) for o in graph.outputs] == [("tokens", "int64"), ("scores", "float32")]
    onnx.checker.check_model(exported.folder / "three.onnx", full_check=True)
    model = ir.load(exported.folder / "three.onnx")
    assert model.metadata_props == {"beam": "3", "length_penalty": "1.0"}


def test_the_loop_repeats_only_what_changes(exported: Exported) -> None:
    exported.one_graph(4)
    (loop,) = (n for n in ir.load(exported.folder / "translate.onnx").graph if n.op_type == "Loop")
    body = loop.attributes["body"].as_graph()
    changing = set(body.inputs)
    for node in body:
        assert changing.intersection(v for v in node.inputs if v is not None), f"{node.op_type} is always the same"
        changing.update(node.outputs)


def test_beam_defaults_to_the_decoding(exported: Exported) -> None:
    decoding = Decoding(beam=2)
    add_translate(exported.folder, exported.entry.state, exported.tokens, exported.limits, decoding)
    assert ir.load(exported.folder / "translate.onnx").metadata_props["beam"] == "2"


def test_export_errors(exported: Exported, tmp_path: Path) -> None:
    settings = exported.tokens, exported.limits, exported.decoding
    with pytest.raises(ExportError, match=r"encode\.onnx is missing"):
        add_translate(tmp_path, exported.entry.state, *settings)
    with pytest.raises(ExportError, match=r"step\.onnx and the state do not agree on cross_mask"):
        add_translate(exported.folder, exported.entry.state[:-1], *settings)
    with pytest.raises(ExportError, match="beam is 0"):
        add_translate(exported.folder, exported.entry.state, *settings, beam=0)
    with pytest.raises(ExportError, match=r"pad id 160 .* vocabulary of 160"):
        add_translate(exported.folder, exported.entry.state, TokenIds(pad=160, eos=2, unk=3, start=2), *settings[1:])
    assert not list(tmp_path.iterdir())


def test_run_errors(exported: Exported) -> None:
    graph = exported.one_graph(4)
    assert graph.translate([], []) == []
    with pytest.raises(SearchError, match="source 1 is empty"):
        graph.translate([(5, 2), ()], [3, 3])
    with pytest.raises(SearchError, match="1 max_lengths for 2 sentences"):
        graph.translate([(5, 2), (2,)], [3])
    with pytest.raises(SearchError, match="max_lengths holds 0"):
        graph.translate([(5, 2)], [0])
    with pytest.raises(SearchError, match="65 tokens, the model takes 64"):
        graph.translate([(5,) * 65], [3])
    with pytest.raises(BundleError, match=r"cannot load nothing\.onnx"):
        OneGraph(exported.folder / "nothing.onnx", exported.tokens, exported.limits)


@pytest.mark.parametrize("beam", [1, 4])
def test_a_damaged_model_is_noticed(exported: Exported, tmp_path: Path, beam: int) -> None:
    """Weights that are no numbers: no hypothesis ends, which must not pass for a translation."""
    shutil.copytree(exported.folder, tmp_path / "onnx")
    damaged = Exported(tmp_path / "onnx", exported.bundle, exported.entry)
    weights = tmp_path / "onnx" / "weights.bin"
    weights.write_bytes(b"\xff" * weights.stat().st_size)
    with pytest.raises(SearchError, match="not finite"):
        damaged.one_graph(beam).translate([(5, 6, 2)], [4])
