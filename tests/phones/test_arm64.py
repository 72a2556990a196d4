"""ARM code: a bundle and the arm64 runner, pushed through the real adb and AOSP's adbd, run in an arm64 userland.

The processor is qemu's, so instructions and results are ARM's, and times are not.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lite_export.cli import app
from lite_runtime.adb_device import AdbDevice
from lite_runtime.bundle import Bundle
from lite_runtime.golden import GoldenSentence, load_golden
from lite_runtime.native_runner import NativeRunner
from lite_runtime.parity import translate_golden
from lite_runtime.runner_folder import RunnerFolder
from lite_runtime.runner_protocol import Decode, Decoded, Measure, Measured, Replay, Replayed, Sentence
from lite_runtime.tolerances import tolerance_of
from phones.fixtures import use
from phones.phone import Phone
from phones.phone_requests import PATIENCE, request_of


@pytest.fixture(scope="module")
def native(arm64_device: AdbDevice, arm64_runner: RunnerFolder, native_bundle: Bundle) -> NativeRunner:
    """The runner and the bundle, pushed."""
    runner = NativeRunner(arm64_device, arm64_runner.folder)
    runner.push_bundle(native_bundle, native_bundle.manifest.formats, "bundle")
    return runner


def golden_of(bundle: Bundle) -> tuple[GoldenSentence, ...]:
    return load_golden(bundle.folder / bundle.manifest.golden.sentences)


@pytest.mark.parametrize("form", ["onnx", "executorch"])
def test_golden_steps(native: NativeRunner, native_bundle: Bundle, form: str) -> None:
    entry = native_bundle.format(form, "fp32", "explicit")
    answer = native.run(request_of(entry, Replay()), PATIENCE)
    assert answer.abi == "arm64-v8a"
    assert isinstance(answer.result, Replayed)
    largest = [d.largest for d in answer.result.differences]
    assert len({d.tensor for d in answer.result.differences}) == len(entry.state) + 1
    assert all(value is not None and value <= tolerance_of(entry).tensors for value in largest)


@pytest.mark.parametrize("form", ["onnx", "executorch"])
def test_tokens_are_pythons(native: NativeRunner, native_bundle: Bundle, form: str) -> None:
    entry, manifest = native_bundle.format(form, "fp32", "explicit"), native_bundle.manifest
    sources = [sentence.source for sentence in golden_of(native_bundle)]
    longest = [manifest.decoding.longest(len(source), manifest.limits) for source in sources]
    asked = tuple(Sentence(source=s, max_length=most) for s, most in zip(sources, longest, strict=True))
    decoded = native.run(request_of(entry, Decode(sentences=asked)), PATIENCE).result
    assert isinstance(decoded, Decoded)
    session = native_bundle.session_of(entry, threads=1)
    wanted = translate_golden(session, sources, manifest.tokens, manifest.limits, manifest.decoding, 1)
    assert [h.tokens for h in decoded.hypotheses] == [python[0].tokens for python in wanted]


def test_the_runner_needs_nothing_of_the_phone(
    arm64_device: AdbDevice, native: NativeRunner, arm64_runner: RunnerFolder
) -> None:
    """Every library comes from its own folder, none from the userland."""
    loader, *rest = arm64_runner.command("runner")
    listed = arm64_device.run([loader, "--list", *rest], PATIENCE)
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
