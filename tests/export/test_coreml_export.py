"""Core ML packages, read back from disk and run: every tensor against PyTorch, what they store, what they declare."""

from __future__ import annotations

import inspect
import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coreml_packages import Form, blobs, operations, specification, stored, weights, wide_config
from lite_export.coreml_export import CoreMlExporter, PackageCard, coreml_name, export_coreml
from lite_export.coreml_precision import Precision
from lite_export.errors import ExportError
from lite_export.flavours import Slots
from lite_export.graphs import EncodeGraph, StepGraph
from lite_export.torch_session import TorchSession
from lite_runtime import coreml_session as sessions
from lite_runtime.bundle import BundleError
from lite_runtime.coreml_session import PredictorFunction, coreml_session
from lite_runtime.manifest import FormatEntry, TokenIds
from lite_runtime.quiet_coremltools import coremltools
from lite_runtime.rows import HELD, RowSession
from lite_runtime.search import SearchOptions, search
from lite_transformer.config import ModelConfig
from lite_transformer.model import LiteTransformer
from tiny_models import lively_model, tiny_config

CARD = PackageCard(author="an author", licence="MIT", description="English to French", version="1.2")
TOKENS = TokenIds(pad=1, eos=2, unk=3, start=2)
# Precision, cache, and the most that any state, layer or logit may be off (logits reach some 15).
FORMS: dict[tuple[Precision, str], float] = {
    ("fp32", "stateful"): 3e-5,
    ("fp16", "stateful"): 0.05,
    ("int8", "stateful"): 0.5,
    ("int4", "stateful"): 6.0,
    ("palette4", "stateful"): 6.0,
    ("int8", "explicit"): 0.5,
}
Exported = dict[Form, tuple[Path, FormatEntry]]


@pytest.fixture(scope="module")
def model() -> LiteTransformer:
    return lively_model(wide_config())


@pytest.fixture(scope="module")
def exporter(model: LiteTransformer) -> CoreMlExporter:
    return CoreMlExporter(model, CARD)


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What exporting every form wrote to the terminal."""
    return []


@pytest.fixture(scope="module")
def exported(exporter: CoreMlExporter, said: list[str], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Every form, written once."""
    folder, terminal = tmp_path_factory.mktemp("coreml"), io.StringIO()
    with redirect_stdout(terminal), redirect_stderr(terminal):
        forms = {form: (folder, write(exporter, folder, *form)) for form in FORMS}
    said.append(terminal.getvalue())
    return forms


def write(exporter: CoreMlExporter, folder: Path, precision: Precision, cache: str) -> FormatEntry:
    encode, step, state = exporter.write(folder, precision, cache)
    return FormatEntry(
        format="coreml", precision=precision, cache=cache, files=(), encode=encode, step=step, state=state
    )


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> tuple[RowSession, LiteTransformer]:
    """Another kind of model, its caches explicit: dynamic convolution, post-norm, two tables."""
    config = tiny_config("dynamic", "post")
    assert config.encoder is not None
    encoder = config.encoder.model_copy(update={"kernels": (5,)})
    config = config.model_copy(update={"encoder": encoder, "embeddings": "untied", "max_target": 12})
    model, folder = lively_model(config), tmp_path_factory.mktemp("dynamic")
    encode, step, state = export_coreml(model, folder, "fp32", "explicit", CARD)
    entry = FormatEntry(format="coreml", precision="fp32", files=(), encode=encode, step=step, state=state)
    return coreml_session(folder, entry), model


def differences(session: RowSession, model: LiteTransformer, source: int, seed: int) -> dict[str, float]:
    """The largest difference of every tensor over a decode to the maximum target."""
    reference, rng, worst = TorchSession(model), np.random.default_rng(seed), {}

    def compare(name: str, actual: np.ndarray, wanted: np.ndarray) -> None:
        assert actual.shape == wanted.shape, name
        assert actual.dtype == np.float32, name
        worst[name] = max(worst.get(name, 0.0), float(np.abs(actual - wanted).max()))

    ids = rng.integers(4, model.config.source_vocab, (1, source))
    # The last word is padding where there is one to spare.
    mask = np.arange(source)[None] < max(source - 1, 1)
    wanted, state = reference.encode(ids, mask), session.encode(ids, mask)
    for name in ("encoder_layer.0", "cross_key.1", "cross_value.0", "cross_mask"):
        compare(name, {**session.canonical(state), **session.layers}[name], {**wanted, **reference.layers}[name])
    for position in range(model.config.max_target):
        tokens = rng.integers(4, model.config.target_vocab, 1)
        logits, state = session.step(tokens, position, state)
        wanted_logits, wanted = reference.step(tokens, position, wanted)
        compare("logits", logits, wanted_logits)
        for name, tensor in session.canonical(state).items():
            compare(name, tensor, wanted[name])
        assert session.layers.keys() == reference.layers.keys()
        for name, tensor in session.layers.items():
            compare(name, tensor, reference.layers[name])
    return worst


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_every_tensor_equals_the_reference(exported: Exported, model: LiteTransformer, form: Form) -> None:
    """Sources of one word and the most, one after the other on one session, to the last target position."""
    folder, entry = exported[form]
    session = coreml_session(folder, entry)
    for seed, source in enumerate((1, model.config.max_source)):
        worst = differences(session, model, source, seed)
        seen = {"logits", "decoder_layer.0", "decoder_layer.1", "encoder_layer.0", "cross_mask"}
        assert worst.keys() > seen
        assert ("self_key.1" in worst and "conv_window.0" in worst) == (form[1] == "explicit")
        assert max(worst.values()) <= FORMS[form], worst
        # What is compressed is not what it was.
        assert form[0] == "fp32" or worst["logits"] > 1e-4


def test_float16_rounded_as_on_a_device(exported: Exported, model: LiteTransformer) -> None:
    folder, entry = exported["fp16", "stateful"]
    rounded = differences(coreml_session(folder, entry, exact_fp16=True), model, 9, 5)["logits"]
    assert differences(coreml_session(folder, entry), model, 9, 5)["logits"] < rounded < 0.15


def test_beams_and_their_forks_find_what_pytorch_finds(
    exported: Exported,
    model: LiteTransformer,
    dynamic: tuple[RowSession, LiteTransformer],
) -> None:
    rng = np.random.default_rng(3)
    for session, reference in ((coreml_session(*exported["fp32", "stateful"]), model), dynamic):
        config = reference.config
        sources = [tuple(rng.integers(4, config.source_vocab, n).tolist()) for n in (1, 20, 7)]
        options = SearchOptions(beam=4, nbest=4, max_length=config.max_target - 1)
        wanted = search(TorchSession(reference), sources, TOKENS, options)
        for expected, found in zip(wanted, search(session, sources, TOKENS, options), strict=True):
            assert [h.tokens for h in found] == [h.tokens for h in expected]
            np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], atol=1e-4)


def test_a_used_state_starts_a_sentence_like_a_fresh_one(exported: Exported) -> None:
    session = coreml_session(*exported["fp32", "stateful"])
    source = np.array([[5, 6, 7, 2]])
    fresh, used = session.encode(source, source > 0), session.encode(source, source > 0)
    for position in range(12):
        _, used = session.step(np.array([9 + position]), position, used)
    for position, token in enumerate((2, 40, 41)):
        wanted, fresh = session.step(np.array([token]), position, fresh)
        logits, used = session.step(np.array([token]), position, used)
        np.testing.assert_array_equal(logits, wanted)


def test_forks_go_their_own_ways(exported: Exported) -> None:
    session = coreml_session(*exported["fp32", "stateful"])
    source = np.array([[5, 6, 7, 2]])
    _, state = session.step(np.array([2]), 0, session.encode(source, source > 0))
    state = session.reorder(state, np.array([0, 0]))
    assert len(state[HELD]) == 2
    apart, state = session.step(np.array([50, 60]), 1, state)
    assert np.abs(apart[0] - apart[1]).max() > 1e-2
    for row, token in enumerate((50, 60)):
        _, alone = session.step(np.array([2]), 0, session.encode(source, source > 0))
        logits, _ = session.step(np.array([token]), 1, alone)
        np.testing.assert_array_equal(logits[0], apart[row])


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_every_weight_is_stored_once(exported: Exported, model: LiteTransformer, form: Form) -> None:
    """Within 2 % of its unique weights; one file where functions share, one for each where Core ML cannot."""
    folder, entry = exported[form]
    flavour, vocabulary = Slots(model.config.max_target), model.config.target_vocab
    encode, step = EncodeGraph(model, flavour), StepGraph(model, flavour)
    # Core ML writes out the bias that the projection does not have.
    bias = torch.zeros(vocabulary)
    if form[1] == "stateful":
        assert entry.encode.file == entry.step.file
        files = {entry.encode.file: [*weights(encode, step), bias]}
    else:
        files = {entry.encode.file: weights(encode), entry.step.file: [*weights(step), bias]}
    for file, inside in files.items():
        assert blobs(folder / file) == pytest.approx(stored(inside, form, vocabulary), rel=0.02)


@pytest.mark.parametrize(
    ("precision", "kinds"),
    [
        ("fp32", {}),
        ("fp16", {}),
        ("int8", {"constexpr_blockwise_shift_scale": (8, 17)}),
        ("int4", {"constexpr_blockwise_shift_scale": (8, 17)}),
        ("palette4", {"constexpr_blockwise_shift_scale": (1, 1), "constexpr_lut_to_dense": (7, 16)}),
    ],
)
def test_matrices_and_the_table_are_compressed_and_nothing_else(
    exported: Exported, precision: Precision, kinds: dict[str, tuple[int, int]]
) -> None:
    """Encode: one layer's six matrices, the memory's, the table. Step: two layers' eight, the table, used twice."""
    folder, entry = exported[precision, "stateful"]
    content = specification(folder, entry.step.file)
    for index, function in enumerate(("encode", "step")):
        found = [o for o in operations(content, function) if o.type.startswith("constexpr")]
        for kind, counts in kinds.items():
            assert sum(o.type == kind for o in found) == counts[index]
        assert len(found) == sum(counts[index] for counts in kinds.values())
        names = [o.outputs[0].name for o in found]
        assert not [n for n in names if "taps" in n or "positions" in n or "norm" in n or "bias" in n]
        tables = [o for o in found if "embedding" in o.outputs[0].name or "projection" in o.outputs[0].name]
        assert len(tables) == bool(kinds)
        plain = " ".join(o.outputs[0].name for o in operations(content, function) if o.type == "const")
        assert "convolution_taps" in plain
        assert "positions_table" in plain


def test_one_table_serves_lookup_and_projection(exported: Exported) -> None:
    folder, entry = exported["int4", "stateful"]
    step = operations(specification(folder, entry.step.file), "step")
    projection = [o for o in step if o.type == "linear"][-1]
    table = projection.inputs["weight"].arguments[0].name
    users = [o.type for o in step if table in {a.name for given in o.inputs.values() for a in given.arguments}]
    assert users == ["gather", "linear"]


def test_stateful_package_declares_itself(exported: Exported) -> None:
    folder, entry = exported["fp16", "stateful"]
    content = specification(folder, entry.step.file)
    # 9 is iOS 18.
    assert content.specificationVersion == 9
    about = content.description.metadata
    assert (about.author, about.license) == ("an author", "MIT")
    assert (about.shortDescription, about.versionString) == ("English to French", "1.2")
    encode, step = (
        next(f for f in content.description.functions if f.name == g.function) for g in (entry.encode, entry.step)
    )
    assert content.description.defaultFunctionName == "step"
    assert [s.name for s in step.state] == [coreml_name(s.name) for s in entry.state if s.held]
    assert {s.type.stateType.arrayType.dataType for s in step.state} == {65552}
    assert not encode.state
    for function, graph in ((encode, entry.encode), (step, entry.step)):
        check_ports(function.input, graph.inputs)
        assert {f.name for f in function.output} == {spec.name for spec in graph.outputs}
        assert all(f.shortDescription for f in (*function.input, *function.output, *function.state))


def test_explicit_packages_run_on_older_systems(exported: Exported) -> None:
    folder, entry = exported["int8", "explicit"]
    for graph in (entry.encode, entry.step):
        content = specification(folder, graph.file)
        # 7 is iOS 16.
        assert content.specificationVersion == 7
        assert content.description.metadata.author == "an author"
        assert not content.description.functions
        assert graph.function is None
        check_ports(content.description.input, graph.inputs)
        assert all(f.shortDescription for f in (*content.description.input, *content.description.output))
    assert [s.name for s in entry.step.inputs] == ["tokens", "position", *(coreml_name(s.name) for s in entry.state)]


def check_ports(features: Any, specs: Any) -> None:
    """Names, types, and sizes that may vary exactly where the manifest says so."""
    kinds = {"int32": 131104, "float32": 65568}
    assert {f.name for f in features} == {spec.name for spec in specs}
    declared = {f.name: f.type.multiArrayType for f in features}
    for spec in specs:
        array = declared[spec.name]
        assert array.dataType == kinds[spec.dtype]
        ranges = [(r.lowerBound, r.upperBound) for r in array.shapeRange.sizeRanges] or [(n, n) for n in array.shape]
        assert ranges == [(1, 21) if n == "source" else (n, n) for n in spec.shape]


def test_int4_with_explicit_caches_is_one_package(exporter: CoreMlExporter, tmp_path: Path) -> None:
    """Its blocks need iOS 18, where functions may share."""
    entry = write(exporter, tmp_path, "int4", "explicit")
    assert entry.encode.file == entry.step.file == "int4.mlpackage"
    assert {f.name for f in specification(tmp_path, "int4.mlpackage").description.functions} == {"encode", "step"}
    assert max(differences(coreml_session(tmp_path, entry), exporter.model, 4, 0).values()) < 6.0


def test_dynamic_convolution_untied_and_post_norm(dynamic: tuple[RowSession, LiteTransformer]) -> None:
    """Sources shorter than the kernels included; every state is explicit and seen."""
    session, model = dynamic
    for source in (1, 2, model.config.max_source):
        worst = differences(session, model, source, source)
        assert worst.keys() >= {spec.name for spec in TorchSession(model).specs} - {"cross_key.0", "cross_value.1"}
        assert max(worst.values()) < 3e-5


def test_export_says_nothing_and_leaves_only_packages(exported: Exported, said: list[str]) -> None:
    assert said == [""]
    folder, _ = exported["fp32", "stateful"]
    assert {p.name for p in folder.iterdir()} == {
        f"{precision}-stateful.mlpackage" if cache == "stateful" else precision for precision, cache in FORMS
    }
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert {p.name for p in files} == {"Manifest.json", "model.mlmodel", "weight.bin"}
    assert {p.stat().st_mode & 0o777 for p in files} == {0o644}


def test_the_model_is_left_as_it_was(exporter: CoreMlExporter, exported: Exported) -> None:
    assert all(parameter.requires_grad for parameter in exporter.model.parameters())


def test_what_cannot_be_exported_is_refused(
    model: LiteTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config()
    decoder = config.decoder.model_copy(update={"cross_heads": 0})
    language = LiteTransformer(ModelConfig(**{**config.model_dump(), "encoder": None, "decoder": decoder.model_dump()}))
    with pytest.raises(ExportError, match="no encoder"):
        export_coreml(language, tmp_path, "fp32", "stateful", CARD)
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(ExportError, match=r"pip install 'lite-export\[coreml\]'"):
        export_coreml(model, tmp_path, "fp32", "stateful", CARD)
    assert not list(tmp_path.iterdir())


def test_another_function_name_is_reported(exported: Exported) -> None:
    folder, entry = exported["fp16", "stateful"]
    other = entry.model_copy(update={"step": entry.step.model_copy(update={"function": "decode"})})
    with pytest.raises(BundleError, match=r"fp16-stateful\.mlpackage has no function decode: export again"):
        coreml_session(folder, other)


def test_on_macos_core_ml_itself_is_asked(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is none, that is what is reported; the calls made there are those coremltools offers."""
    monkeypatch.setattr(sessions.sys, "platform", "darwin")
    with pytest.raises(BundleError, match=r"Core ML does not load .*fp16-stateful\.mlpackage: there is no Core ML"):
        coreml_session(*exported["fp16", "stateful"])
    models = coremltools("models.model")
    assert list(inspect.signature(models.MLModel.predict).parameters) == ["self", "data", "state"]
    assert list(inspect.signature(models.MLModel.make_state).parameters) == ["self"]
    assert list(inspect.signature(models.MLState.read_state).parameters) == ["self", "name"]
    assert list(inspect.signature(models.MLState.write_state).parameters) == ["self", "name", "value"]
    assert "function_name" in inspect.signature(models.MLModel).parameters
    with pytest.raises(BundleError, match="is damaged"):
        PredictorFunction(exported["fp16", "stateful"][0] / "fp32", None)
