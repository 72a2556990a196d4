"""ARM code: a bundle and the arm64 runner, pushed through the real adb and AOSP's adbd, run in an arm64 userland.

The processor is qemu's, so instructions and results are ARM's, and times are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lite_export.cli import app
from lite_runtime.adb_device import AdbDevice, find_phone
from lite_runtime.bundle import Bundle
from lite_runtime.golden import GoldenSentence, load_golden
from lite_runtime.manifest import FormatEntry
from lite_runtime.native_runner import NativeRunner
from lite_runtime.parity import translate_golden
from lite_runtime.runner_folder import RunnerFolder
from lite_runtime.runner_protocol import Decode, Decoded, Measure, Measured, Replay, Replayed, RunnerRequest, Sentence
from lite_runtime.tolerances import tolerance_of
from phones.fixtures import use
from phones.phone import Phone

PATIENCE = 300.0
FORMS = [("onnx", "fp32"), ("onnx", "int8"), ("executorch", "fp32"), ("executorch", "int8")]


@pytest.fixture(scope="module")
def device(arm64_phone: Phone) -> Iterator[AdbDevice]:
    """The phone, as a user's process finds it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(arm64_phone, monkeypatch)
        with find_phone() as found:
            yield found


@pytest.fixture(scope="module")
def native(device: AdbDevice, arm64_runner: RunnerFolder, native_bundle: Bundle) -> NativeRunner:
    """The runner and the bundle, pushed."""
    runner = NativeRunner(device, arm64_runner.folder)
    runner.push_bundle(native_bundle, native_bundle.manifest.formats, "bundle")
    return runner


def golden_of(bundle: Bundle) -> tuple[GoldenSentence, ...]:
    return load_golden(bundle.folder / bundle.manifest.golden.sentences)


def request_of(entry: FormatEntry, task: Decode | Measure | Replay) -> RunnerRequest:
    return RunnerRequest(
        bundle="bundle",
        format="onnx" if entry.format == "onnx" else "executorch",
        precision=entry.precision,
        cache=entry.cache,
        task=task,
    )


@pytest.mark.parametrize(("form", "precision"), FORMS)
def test_golden_steps(native: NativeRunner, native_bundle: Bundle, form: str, precision: str) -> None:
    entry = native_bundle.format(form, precision, "explicit")
    answer = native.run(request_of(entry, Replay()), PATIENCE)
    assert answer.abi == "arm64-v8a"
    assert isinstance(answer.result, Replayed)
    largest = [d.largest for d in answer.result.differences]
    assert len({d.tensor for d in answer.result.differences}) == len(entry.state) + 1
    assert all(value is not None and value <= tolerance_of(entry).tensors for value in largest)


@pytest.mark.parametrize(("form", "precision"), FORMS)
def test_tokens_are_pythons(native: NativeRunner, native_bundle: Bundle, form: str, precision: str) -> None:
    """Of fp32 to the last; int8 sums other products there than here, and a near tie may fall the other way."""
    entry, manifest, golden = (
        native_bundle.format(form, precision, "explicit"),
        native_bundle.manifest,
        golden_of(native_bundle),
    )
    sources = [sentence.source for sentence in golden]
    longest = [manifest.decoding.longest(len(source), manifest.limits) for source in sources]
    asked = tuple(Sentence(source=s, max_length=most) for s, most in zip(sources, longest, strict=True))
    decoded = native.run(request_of(entry, Decode(sentences=asked)), PATIENCE).result
    assert isinstance(decoded, Decoded)
    session = native_bundle.session_of(entry, threads=1)
    wanted = translate_golden(session, sources, manifest.tokens, manifest.limits, manifest.decoding, 1)
    same = [found.tokens == python[0].tokens for found, python in zip(decoded.hypotheses, wanted, strict=True)]
    assert np.mean(same) >= (1.0 if precision == "fp32" else 0.9)


@pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a76", "max,sme=off"])
@pytest.mark.parametrize("form", ["onnx", "executorch"])
def test_int8_kernels_of_every_kind_of_processor(
    native: NativeRunner, native_bundle: Bundle, arm64_runner: RunnerFolder, tmp_path: Path, form: str, cpu: str
) -> None:
    """Without dot products, with them, and with matrix products and SVE: the libraries choose other kernels."""
    entry = native_bundle.format(form, "int8", "explicit")
    (tmp_path / "request.json").write_text(request_of(entry, Replay()).model_dump_json())
    native.device.push(tmp_path / "request.json", "request.json")
    command = [*arm64_runner.command("runner"), "request.json", "other.json"]
    done = native.device.run(command, PATIENCE, {"QEMU_CPU": cpu})
    assert done.failure() is None
    native.device.pull("other.json", tmp_path / "other.json")
    differences = json.loads((tmp_path / "other.json").read_text())["result"]["differences"]
    assert max(d["largest"] for d in differences) <= tolerance_of(entry).tensors


def test_the_runner_needs_nothing_of_the_phone(
    device: AdbDevice, native: NativeRunner, arm64_runner: RunnerFolder
) -> None:
    """Every library comes from its own folder, none from the userland."""
    loader, *rest = arm64_runner.command("runner")
    listed = device.run([loader, "--list", *rest], PATIENCE)
    assert listed.exit_code == 0
    places = [line.partition("=>")[2].strip() for line in listed.stdout.splitlines() if "=>" in line]
    assert places and all(place.startswith("runner/") for place in places)


def test_parity_command(
    arm64_phone: Phone,
    arm64_runner: RunnerFolder,
    native_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(arm64_phone, monkeypatch)
    before = arm64_phone("shell", "ls /data/local/tmp/*").stdout
    options = ["--device", "adb", "--format", "executorch", "--precision", "fp32", "--sentences", "6"]
    command = ["parity", str(native_bundle.folder), *options, "--runner", str(arm64_runner.folder)]
    done = CliRunner().invoke(app, [*command, "--json", str(tmp_path / "report.json")])
    assert done.exit_code == 0, done.output
    assert "emulated: arm64 code runs under qemu-user" in done.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["device"]["abi"] == "arm64-v8a"
    assert [entry["cache"] for entry in report["formats"]] == ["explicit", "stateful"]
    assert all(rung["passed"] for entry in report["formats"] for rung in entry["rungs"])
    assert arm64_phone("shell", "ls /data/local/tmp/*").stdout == before


def test_latency_is_called_emulated(native: NativeRunner, native_bundle: Bundle) -> None:
    entry = native_bundle.format("executorch", "fp32", "explicit")
    task = Measure(sources=(golden_of(native_bundle)[0].source,), tokens=4)
    measured = native.run(request_of(entry, task), PATIENCE).result
    facts = native.device.facts()
    assert isinstance(measured, Measured)
    assert facts.emulated is not None
    print(f"emulated ({facts.emulated}): {measured.timings[0].steps} ms a token, no measurement")
