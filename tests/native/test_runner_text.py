"""The native runner translates text as Python's translator does: tokens, sentences and every character."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from native_runs import Run, sign_again
from texts import ODD, abbreviations, noise, sentences

from kept_bundles import kept_bundle
from lite_export.loading import shipped_model
from lite_export.recipes import plan
from lite_runtime.bundle import Bundle, open_bundle
from lite_runtime.device import DeviceError
from lite_runtime.host_device import HostDevice
from lite_runtime.manifest import FormatEntry
from lite_runtime.native_runner import NativeRunner
from lite_runtime.runner_folder import RunnerFolder
from lite_runtime.runner_protocol import RunnerRequest, Translate, Translated, TranslatedText
from lite_runtime.translator import TranslateOptions, Translation
from lite_transformer.checkpoint import TOKENIZER
from requirements import require
from tiny_models import tiny_config, write_tiny_folder


@pytest.fixture(autouse=True)
def _runner_with_text(runner_folder: RunnerFolder) -> None:
    require(None if runner_folder.note.text else "no SentencePiece in C++: apt install libsentencepiece-dev")


@pytest.fixture(scope="module")
def text_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tiny model that reads and writes the shipped tokenizer's tokens."""
    folder = tmp_path_factory.mktemp("text")
    small = tiny_config()
    one_layer = {side: getattr(small, side).model_copy(update={"kernels": (3,)}) for side in ("encoder", "decoder")}
    config = small.model_copy(update={"source_vocab": 8000, "target_vocab": 8000, **one_layer})
    write_tiny_folder(folder / "model", config)
    shutil.copy(shipped_model() / TOKENIZER, folder / "model" / TOKENIZER)
    return kept_bundle("text-bundle", folder / "model", plan(["onnx"], ["fp32"], ["explicit"]), folder / "bundle")


@pytest.fixture
def changed(native_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    shutil.copytree(native_bundle.folder, tmp_path / "changed")
    return tmp_path / "changed"


def check_against_python(run: Run, bundle: Bundle, entry: FormatEntry, task: Translate) -> list[TranslatedText]:
    """What the runner makes of the task, which must be what Python makes of it."""
    result = run(bundle.folder, entry, task).result
    assert isinstance(result, Translated)
    translator = bundle.translator_of(bundle.session_of(entry, threads=1))
    options = TranslateOptions(**task.model_dump(exclude={"kind", "texts"}))
    # With eight bits, what else is in a batch tells on a sentence.
    wanted = translator.translate(task.texts, options, batch_size=16 if entry.precision == "fp32" else 1)
    assert [_plain(found) for found in result.texts] == [_plain_python(text) for text in wanted]
    for found, text in zip(result.texts, wanted, strict=True):
        scores = [found.score, *(sentence.score for sentence in found.sentences)]
        assert scores == pytest.approx(
            [text.score, *(s.hypotheses[0].score for s in text.sentences)], rel=1e-6, abs=5e-5
        )
    read = [sentence for text in result.texts for sentence in text.sentences if sentence.tokens]
    assert [s.source_tokens for s in read] == [translator.tokenizer.encode(s.source).ids for s in read]
    return list(result.texts)


def _plain(text: TranslatedText) -> tuple[str, list[tuple[str, str, tuple[int, ...]]]]:
    return text.text, [(sentence.source, sentence.text, sentence.tokens) for sentence in text.sentences]


def _plain_python(text: Translation) -> tuple[str, list[tuple[str, str, tuple[int, ...]]]]:
    best = [(sentence.source, sentence.hypotheses[0]) for sentence in text.sentences]
    return text.text, [(source, hypothesis.text, hypothesis.tokens) for source, hypothesis in best]


def onnx(bundle: Bundle) -> FormatEntry:
    return bundle.format("onnx", "fp32")


def test_real_sentences(run: Run, text_bundle: Bundle) -> None:
    """The whole test set through the shipped tokenizer; of each a few tokens, no two alike, become text again."""
    texts = sentences()
    assert len(texts) == 1000
    found = check_against_python(
        run, text_bundle, onnx(text_bundle), Translate(texts=texts, beam=1, max_length=6, no_repeat_ngram=1)
    )
    assert len({sentence.source_tokens for text in found for sentence in text.sentences}) > 990
    assert len({text.text for text in found}) > 100


@pytest.mark.parametrize("tokenizer", ["shipped", "tiny"])
def test_odd_texts(run: Run, native_bundle: Bundle, text_bundle: Bundle, tokenizer: str) -> None:
    """The tiny tokenizer has few characters: most of these are unknown to it, and must come through."""
    bundle = text_bundle if tokenizer == "shipped" else native_bundle
    found = check_against_python(run, bundle, onnx(bundle), Translate(texts=ODD, beam=2, max_length=9))
    longest = max(len(sentence.source_tokens) for text in found for sentence in text.sentences)
    assert longest in range(bundle.manifest.limits.max_source - 8, bundle.manifest.limits.max_source + 1)
    assert found[0] == TranslatedText(text="", score=0.0, sentences=())
    assert found[ODD.index("🙂")].text == "🙂"
    assert found[ODD.index("I am happy 🙂")].text.endswith("🙂")


def test_any_characters(run: Run, text_bundle: Bundle) -> None:
    """What is a space, a letter, a digit, a capital is as this Python's Unicode has it."""
    texts = [*abbreviations(), *noise(1200)]
    check_against_python(run, text_bundle, onnx(text_bundle), Translate(texts=texts, beam=1, max_length=1))


@pytest.mark.parametrize(
    ("form", "precision", "cache", "beam"),
    [
        ("onnx", "int8", "explicit", 2),
        ("executorch", "fp32", "explicit", None),
        ("executorch", "fp32", "stateful", 1),
    ],
)
def test_every_runtime_beside_sentencepiece(
    run: Run, native_bundle: Bundle, form: str, precision: str, cache: str, beam: int | None
) -> None:
    """In one process: what one library brings along must not get into another's way."""
    entry = native_bundle.format(form, precision, cache)
    check_against_python(run, native_bundle, entry, Translate(texts=sentences()[:20], beam=beam))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beam": 3, "length_penalty": 0.2, "no_repeat_ngram": 2},
        {"beam": 1, "min_length": 20},
        {"beam": 2, "min_length": 3, "max_length": 4},
        {"beam": 1, "max_length": 4000},
    ],
)
def test_options_mean_what_they_mean_in_python(run: Run, native_bundle: Bundle, options: dict[str, Any]) -> None:
    texts = ("Yes. I will go home tomorrow!", *sentences()[:8])
    found = check_against_python(run, native_bundle, onnx(native_bundle), Translate(texts=texts, **options))
    lengths = [len(sentence.tokens) - 1 for text in found for sentence in text.sentences]
    assert options.get("min_length", 1) <= min(lengths) <= max(lengths) <= options.get("max_length", 47)


def edit(bundle: Path, path: str, value: Any) -> None:
    """Set one field of a manifest."""
    manifest = json.loads((bundle / "manifest.json").read_text("utf8"))
    *parents, last = path.split(".")
    place = manifest
    for name in parents:
        place = place[name]
    place[last] = value
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf8")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # The order counts: b becomes c only if a did not become b after it.
        ("text.replacements", {"b": "c", "a": "b"}),
        ("text.replacements", {"b": "bb", "bbb": "a", "go": "", "\u201c": "<<"}),
        ("text.replacements", {}),
        ("decoding.beam", 1),
        ("decoding.length_penalty", -3.5),
        ("decoding.no_repeat_ngram", 1),
        ("decoding.max_length_extra", -1000),
        ("decoding.max_length_ratio", 0.37),
        ("limits.max_source", 9),
        ("limits.max_target", 5),
    ],
)
def test_the_manifest_is_followed(run: Run, changed: Path, path: str, value: Any) -> None:
    edit(changed, path, value)
    texts = ("ab “bab” abba b a.", "Going to go, being bbbb; and so on it went. Ok?", *sentences()[:4])
    check_against_python(run, open_bundle(changed), onnx(open_bundle(changed)), Translate(texts=texts))


def request(bundle: Path, texts: Sequence[Any] = ("Yes.",), **options: Any) -> str:
    task = {"kind": "translate", "texts": texts, **options}
    return json.dumps({"bundle": str(bundle), "format": "onnx", "precision": "fp32", "task": task})


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ("Yes.", {}, "task: texts is no list"),
        (["Yes.", 3], {}, "task: texts holds what is no string"),
        (["\ud83d"], {}, "request.json is no whole JSON file"),
        (["Yes."], {"beam": 0}, "task: beam is out of range: 0"),
        (["Yes."], {"max_length": 0}, "task: max_length is out of range: 0"),
        (["Yes."], {"prefix": "Oui"}, "task: prefix is not known"),
        (["Yes."], {"min_length": 9, "max_length": 5}, "lengths 9 to 5 are asked for: min_length must be no more"),
        (["Yes."], {"min_length": 48}, "lengths 48 to 47 are asked for"),
    ],
)
def test_requests(run: Run, native_bundle: Bundle, texts: Any, options: dict[str, Any], message: str) -> None:
    assert message in run.refusal(request(native_bundle.folder, texts, **options))


def test_bytes_that_are_no_text(run: Run, native_bundle: Bundle) -> None:
    path = run.folder / "request.json"
    path.write_bytes(request(native_bundle.folder, ["Yes?"]).encode().replace(b"?", b"\xff"))
    done = run.start_file(path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "request.json is no whole JSON file" in done.stderr


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("text.tokenizer", "../tokenizer.model", "tokenizer is ../tokenizer.model, which is outside the bundle"),
        ("text.tokenizer", "other.model", "uses other.model but does not list it among its files"),
        ("text.replacements", {"": "x"}, "replacements replace nothing by something: export the bundle again"),
        ("text.replacements", {"x": 1}, "replacements: x is no string"),
        ("tokens.unk", 7, "has unk 3, the model 7: it belongs to another model"),
        ("decoding.beam", 0, "decoding: beam is out of range: 0"),
        ("limits.max_target", 1, "lengths 1 to 0 are asked for"),
    ],
)
def test_manifests(run: Run, changed: Path, path: str, value: Any, message: str) -> None:
    edit(changed, path, value)
    assert message in run.refusal(request(changed))


def test_a_damaged_tokenizer(run: Run, changed: Path) -> None:
    """Told by its hash; and where that is right, by SentencePiece."""
    tokenizer = changed / TOKENIZER
    tokenizer.write_bytes(tokenizer.read_bytes()[:-1] + b"!")
    assert "the bundle's tokenizer.model is damaged (its sha256 differs): copy it again" in run.refusal(
        request(changed)
    )
    for content in (b"", b"no tokenizer", bytes(4096)):
        tokenizer.write_bytes(content)
        sign_again(changed, tokenizer)
        assert "tokenizer.model" in run.refusal(request(changed))


def test_another_model_s_tokenizer(run: Run, changed: Path) -> None:
    """The special tokens are the same, but not how many there are."""
    shutil.copy(shipped_model() / TOKENIZER, changed / TOKENIZER)
    sign_again(changed, changed / TOKENIZER)
    for form in ("onnx", "executorch"):
        said = run.refusal(request(changed, ["A blue whale."]).replace("onnx", form))
        assert "has 8000 tokens, the model 160: it belongs to another model" in said


def test_a_character_that_is_too_long(run: Run, changed: Path) -> None:
    """Nothing is left to cut."""
    edit(changed, "limits.max_source", 1)
    assert "tokens, the bundle takes 1: use shorter sentences" in run.refusal(request(changed, ["a"]))


def test_a_runner_without_text(plain_runner: RunnerFolder, native_bundle: Bundle, tmp_path: Path) -> None:
    """It says what to do instead."""
    assert not plain_runner.note.text
    message = (
        "built without SentencePiece and knows token ids only: lite-export build-runner where libsentencepiece-dev"
    )
    assert message in Run(plain_runner, tmp_path).refusal(request(native_bundle.folder))
    task = RunnerRequest(bundle="bundle", format="onnx", precision="fp32", task=Translate(texts=("Yes.",)))
    with HostDevice() as host:
        runner = NativeRunner(host, plain_runner.folder)
        runner.push_bundle(native_bundle, [onnx(native_bundle)], "bundle")
        with pytest.raises(DeviceError, match=f"the native runner refuses onnx fp32 explicit: (?s:.)*{message}"):
            runner.run(task, timeout=60.0)
