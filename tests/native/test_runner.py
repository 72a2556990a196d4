"""The native runner does what Python does: same tokens and scores, golden steps replayed, times that add up."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from native_runs import Run, sign_again

from lite_runtime.bundle import Bundle, open_bundle
from lite_runtime.golden import load_golden
from lite_runtime.manifest import FormatEntry
from lite_runtime.recording import load_recording
from lite_runtime.runner_protocol import Decode, Decoded, Difference, Measure, Measured, Replay, Replayed, Sentence
from lite_runtime.search import SearchOptions, search
from lite_runtime.tolerances import tolerance_of
from lite_transformer.checkpoint import load_model


class Form(NamedTuple):
    format: str
    precision: str
    cache: str = "explicit"

    def entry(self, bundle: Bundle) -> FormatEntry:
        return bundle.format(*self)


EXPLICIT = [Form("onnx", "fp32"), Form("onnx", "int8"), Form("executorch", "fp32")]
each_form = pytest.mark.parametrize("form", [*EXPLICIT, Form("executorch", "fp32", "stateful")], ids="-".join)


def sources(bundle: Bundle) -> list[tuple[int, ...]]:
    return [sentence.source for sentence in load_golden(bundle.folder / bundle.manifest.golden.sentences)]


def check_against_python(run: Run, bundle: Bundle, entry: FormatEntry, options: SearchOptions) -> None:
    limits = [3 + 5 * (i % 5) for i in range(len(sources(bundle)))]
    task = Decode(
        sentences=tuple(Sentence(source=s, max_length=n) for s, n in zip(sources(bundle), limits, strict=True)),
        beam=options.beam,
        length_penalty=options.length_penalty,
        no_repeat_ngram=options.no_repeat_ngram,
    )
    result = run(bundle.folder, entry, task).result
    assert isinstance(result, Decoded)
    session = bundle.session_of(entry, threads=1)
    for sentence, found in zip(task.sentences, result.hypotheses, strict=True):
        ((wanted,),) = search(
            session, [sentence.source], bundle.manifest.tokens, options, max_lengths=[sentence.max_length]
        )
        assert found.tokens == wanted.tokens
        assert found.score == pytest.approx(wanted.score, abs=5e-5)
    lengths = {len(found.tokens) for found in result.hypotheses}
    assert len(lengths) > 3, "some end by themselves, some at their limit"


@each_form
def test_greedy_search_is_python_s(run: Run, native_bundle: Bundle, form: Form) -> None:
    check_against_python(run, native_bundle, form.entry(native_bundle), SearchOptions(beam=1))


@pytest.mark.parametrize("form", EXPLICIT, ids="-".join)
def test_beam_search_is_python_s(run: Run, native_bundle: Bundle, form: Form) -> None:
    check_against_python(run, native_bundle, form.entry(native_bundle), SearchOptions(beam=4))


@pytest.mark.parametrize(
    "options",
    [
        SearchOptions(beam=2, length_penalty=0.3),
        SearchOptions(beam=5, length_penalty=2.0, no_repeat_ngram=2),
        SearchOptions(beam=1, no_repeat_ngram=1),
        # As wide as the vocabulary: dead hypotheses fill the places.
        SearchOptions(beam=90, no_repeat_ngram=3),
    ],
)
def test_options_mean_what_they_mean_in_python(run: Run, native_bundle: Bundle, options: SearchOptions) -> None:
    check_against_python(run, native_bundle, Form("onnx", "fp32").entry(native_bundle), options)


def replayed(run: Run, bundle: Path, entry: FormatEntry) -> tuple[Difference, ...]:
    result = run(bundle, entry, Replay()).result
    assert isinstance(result, Replayed)
    return result.differences


@each_form
def test_golden_steps_are_replayed(run: Run, native_bundle: Bundle, form: Form) -> None:
    """Every state tensor of the encoder, and those and the logits of every step; what a program holds is absent."""
    entry = form.entry(native_bundle)
    differences = replayed(run, native_bundle.folder, entry)
    script, _ = load_recording(native_bundle.folder / native_bundle.manifest.golden.steps)
    reached = {spec.name for spec in entry.state if not spec.held}
    wanted = {(-1, name) for name in reached}
    wanted |= {(step, name) for step in range(len(script.fed)) for name in {*reached, "logits"}}
    assert {(d.step, d.tensor) for d in differences} == wanted
    assert len(differences) == len(wanted)
    assert [d.step for d in differences] == sorted(d.step for d in differences)
    sizes = [math.inf if d.largest is None else d.largest for d in differences]
    # The weights of a tiny model are random: what 8 bits cost it says nothing, as long as they are numbers.
    assert max(sizes) <= (tolerance_of(entry).tensors if form.precision == "fp32" else 100.0)
    assert max(sizes) > 0


@pytest.mark.parametrize("form", [Form("onnx", "fp32"), Form("executorch", "fp32")], ids="-".join)
def test_a_damaged_bundle_shows_the_step_and_tensor(
    run: Run, native_bundle: Bundle, tiny_folder: Path, tmp_path: Path, form: Form
) -> None:
    """Files signed as they are, but zeros for a weight of the decoder's first layer: the second's state tells first."""
    entry = form.entry(native_bundle)
    changed = tmp_path / "changed"
    shutil.copytree(native_bundle.folder, changed)
    weights = changed / ("onnx/fp32/weights.bin" if form.format == "onnx" else entry.step.file)
    weight = load_model(tiny_folder).get_parameter("decoder.layers.0.ffn.expand.weight").detach().numpy().tobytes()
    content = weights.read_bytes()
    assert content.count(weight) == 1
    weights.write_bytes(content.replace(weight, bytes(len(weight))))
    sign_again(changed, weights)
    tolerance = tolerance_of(entry).tensors
    found = replayed(run, changed, open_bundle(changed).format(*form))
    breaches = [(d.step, d.tensor) for d in found if d.largest is None or d.largest > tolerance]
    assert breaches[0] == (0, "self_key.1")
    assert not {name for _, name in breaches} & {"cross_key.0", "cross_key.1", "cross_mask"}


@pytest.mark.parametrize("form", [Form("onnx", "int8"), Form("executorch", "fp32", "stateful")], ids="-".join)
def test_times_are_of_as_many_tokens_as_asked_for(run: Run, native_bundle: Bundle, form: Form) -> None:
    chosen = tuple(sources(native_bundle)[:3])
    answer = run(native_bundle.folder, form.entry(native_bundle), Measure(sources=chosen, tokens=9, warm_up=2))
    result = answer.result
    assert isinstance(result, Measured)
    assert result.load > 0
    assert [len(timing.steps) for timing in result.timings] == [9, 9, 9]
    for timing in result.timings:
        assert min(timing.encode, *timing.steps) > 0
        assert timing.encode + sum(timing.steps) <= timing.sentence
    assert answer.runtime.startswith(form.format)
    assert 1 << 20 < answer.peak_rss < 1 << 30
    assert answer.abi == run.runner.abi


def test_a_single_token_can_be_timed(run: Run, native_bundle: Bundle) -> None:
    task = Measure(sources=(sources(native_bundle)[0],), tokens=1, warm_up=0)
    result = run(native_bundle.folder, Form("onnx", "fp32").entry(native_bundle), task).result
    assert isinstance(result, Measured)
    assert len(result.timings[0].steps) == 1


def test_no_telemetry_is_left_behind(run: Run, native_bundle: Bundle, tmp_path: Path) -> None:
    """ONNX Runtime's builds for Linux keep a device id and a queue of uploads in the home folder, if they may."""
    home = tmp_path / "home"
    home.mkdir()
    entry = Form("onnx", "fp32").entry(native_bundle)
    request = f'{{"bundle": "{native_bundle.folder}", "format": "onnx", "precision": "{entry.precision}", '
    done = run.start(request + '"task": {"kind": "replay"}}', env={"HOME": str(home), "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []
