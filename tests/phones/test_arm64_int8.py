"""The shipped model at int8 on every kind of ARM processor: the kernels that run there are not the host's.

Saturation bugs were known in them (maximum sums of products of 8 bits that overflow 16), so they are named: by the
instructions for integer products that were run.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lite_export.bundle_writer import write_bundle
from lite_export.loading import shipped_model
from lite_export.recipes import plan
from lite_runtime.adb_device import AdbDevice
from lite_runtime.bundle import Bundle, open_bundle
from lite_runtime.golden import load_golden
from lite_runtime.native_runner import NativeRunner
from lite_runtime.parity import first_difference, translate_golden
from lite_runtime.runner_folder import RunnerFolder
from lite_runtime.runner_protocol import Decode, Replay, RunnerResult, Sentence
from lite_runtime.session import Session
from lite_runtime.tolerances import tolerance_of
from phones.instructions import LOG, LOGGING, mnemonics
from phones.phone_requests import PATIENCE, request_of

# Widening products of 8 bits; dot products (ARMv8.4, and before as an option); matrix products (ARMv8.6).
INT8_PRODUCTS = {"smlal", "sdot", "udot", "usdot", "smmla", "ummla", "usmmla", "smopa"}
# Without dot products ONNX Runtime makes floats of the weights.
KERNELS = {
    ("onnx", "cortex-a53"): set[str](),
    ("onnx", "cortex-a76"): {"udot"},
    ("onnx", "max,sme=off"): {"usdot"},
    ("executorch", "cortex-a53"): {"smlal"},
    ("executorch", "cortex-a76"): {"sdot"},
    ("executorch", "max,sme=off"): {"sdot", "smmla"},
}


@pytest.fixture(scope="module")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped model, int8, in both formats a phone with Android runs."""
    folder = tmp_path_factory.mktemp("shipped") / "bundle"
    write_bundle(shipped_model(), folder, recipes=plan(["onnx", "executorch"], ["int8"], ["explicit"]))
    return open_bundle(folder)


@pytest.fixture(scope="module")
def runner(arm64_device: AdbDevice, arm64_runner: RunnerFolder, int8_bundle: Bundle) -> NativeRunner:
    """The runner and the bundle, pushed."""
    runner = NativeRunner(arm64_device, arm64_runner.folder)
    runner.push_bundle(int8_bundle, int8_bundle.manifest.formats, "bundle")
    return runner


@pytest.mark.parametrize(("form", "cpu"), KERNELS)
def test_golden_steps(
    runner: NativeRunner, arm64_runner: RunnerFolder, int8_bundle: Bundle, tmp_path: Path, form: str, cpu: str
) -> None:
    entry = int8_bundle.format(form, "int8", "explicit")
    (tmp_path / "request.json").write_text(request_of(entry, Replay()).model_dump_json())
    runner.device.push(tmp_path / "request.json", "request.json")
    command = [*arm64_runner.command("runner"), "request.json", "answer.json"]
    done = runner.device.run(command, PATIENCE, {"QEMU_CPU": cpu, **LOGGING})
    assert done.failure() is None
    for name in ("answer.json", LOG):
        runner.device.pull(name, tmp_path / name)
    answer = RunnerResult.model_validate_json((tmp_path / "answer.json").read_text())
    differences = json.loads((tmp_path / "answer.json").read_text())["result"]["differences"]
    assert answer.abi == "arm64-v8a"
    assert {d["tensor"] for d in differences} == {spec.name for spec in entry.state} | {"logits"}
    assert max(d["largest"] for d in differences) <= tolerance_of(entry).tensors
    assert mnemonics(tmp_path / LOG) & INT8_PRODUCTS == KERNELS[form, cpu]


@pytest.mark.parametrize("form", ["onnx", "executorch"])
def test_tokens_are_pythons(runner: NativeRunner, int8_bundle: Bundle, form: str) -> None:
    """To the last, or to the first near tie: other kernels round other sums, within what int8 may be off."""
    entry, manifest = int8_bundle.format(form, "int8", "explicit"), int8_bundle.manifest
    golden = sorted(load_golden(int8_bundle.folder / manifest.golden.sentences), key=lambda g: len(g.source))[:8]
    sources = [sentence.source for sentence in golden]
    longest = [manifest.decoding.longest(len(source), manifest.limits) for source in sources]
    asked = tuple(Sentence(source=s, max_length=most) for s, most in zip(sources, longest, strict=True))
    result = runner.run(request_of(entry, Decode(sentences=asked)), PATIENCE).result
    session = int8_bundle.session_of(entry, threads=1)
    wanted = translate_golden(session, sources, manifest.tokens, manifest.limits, manifest.decoding, 1)
    assert result.kind == "decode"
    ahead = [
        lead(session, source, python[0].tokens, found.tokens, manifest.tokens.start)
        for source, python, found in zip(sources, wanted, result.hypotheses, strict=True)
    ]
    assert max(ahead) <= tolerance_of(entry).tensors / 2
    assert np.mean([value == 0 for value in ahead]) >= 0.75


def lead(
    session: Session, source: tuple[int, ...], ours: tuple[int, ...], theirs: tuple[int, ...], start: int
) -> float:
    """By how much Python prefers its own token where two translations part; 0 where they do not."""
    same = first_difference(ours, theirs)
    if same == len(ours) == len(theirs):
        return 0.0
    row = np.array([source])
    state = session.encode(row, np.ones_like(row, bool))
    for position, token in enumerate((start, *ours[:same])):
        logits, state = session.step(np.array([token]), position, state)
    return float(logits[0, ours[same]] - logits[0, theirs[same]])
