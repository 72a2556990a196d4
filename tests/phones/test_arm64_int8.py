"""The shipped model at int8 on every kind of ARM processor: the kernels that run there are not the host's.

Saturation bugs were known in them (maximum sums of products of 8 bits that overflow 16), so they are named: by the
instructions for integer products that were run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lite_export.bundle_writer import write_bundle
from lite_export.loading import shipped_model
from lite_export.recipes import plan
from lite_runtime.adb_device import find_phone
from lite_runtime.bundle import Bundle, open_bundle
from lite_runtime.golden import load_golden
from lite_runtime.native_runner import NativeRunner
from lite_runtime.runner_folder import RunnerFolder
from lite_runtime.runner_protocol import Decode, Decoded, Replay, Replayed, Sentence
from lite_runtime.tolerances import tolerance_of
from phones.arm_python import run_python
from phones.fixtures import use
from phones.instructions import LOG, LOGGING, mnemonics
from phones.machine import lacking_arm64
from phones.phone import running_phone
from phones.phone_requests import PATIENCE, request_of
from requirements import require

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

# Sentences whose tokens are compared.
COUNT = 10
TOKENS = Path(__file__).with_name("python_tokens.py")


@pytest.fixture(scope="module")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped model, int8, in both formats a phone with Android runs."""
    folder = tmp_path_factory.mktemp("shipped") / "bundle"
    write_bundle(shipped_model(), folder, recipes=plan(["onnx", "executorch"], ["int8"], ["explicit"]))
    return open_bundle(folder)


@pytest.fixture(scope="module", params=dict.fromkeys(cpu for _, cpu in KERNELS))
def cpu(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def runner(cpu: str, arm64_runner: RunnerFolder, int8_bundle: Bundle) -> Iterator[NativeRunner]:
    """The runner and the bundle, on a phone with that processor: libraries choose kernels by its name, too."""
    require(lacking_arm64())
    with pytest.MonkeyPatch.context() as monkeypatch, running_phone("arm64", cpu) as phone:
        use(phone, monkeypatch)
        with find_phone() as device:
            runner = NativeRunner(device, arm64_runner.folder)
            runner.push_bundle(int8_bundle, int8_bundle.manifest.formats, "bundle")
            yield runner


@pytest.fixture(scope="module")
def python_tokens(cpu: str, int8_bundle: Bundle) -> dict[str, list[list[int]]]:
    """Python's, by format, as arm64 code on the same processor: on another, other kernels round other sums."""
    require(lacking_arm64())
    return json.loads(run_python(cpu, TOKENS, int8_bundle.folder, "int8", COUNT))


@pytest.mark.parametrize("form", ["onnx", "executorch"])
def test_golden_steps(runner: NativeRunner, cpu: str, int8_bundle: Bundle, tmp_path: Path, form: str) -> None:
    entry = int8_bundle.format(form, "int8", "explicit")
    answer = runner.run(request_of(entry, Replay()), PATIENCE, LOGGING)
    runner.device.pull(LOG, tmp_path / LOG)
    assert answer.abi == "arm64-v8a"
    assert isinstance(answer.result, Replayed)
    assert {d.tensor for d in answer.result.differences} == {spec.name for spec in entry.state} | {"logits"}
    assert all(d.largest is not None and d.largest <= tolerance_of(entry).tensors for d in answer.result.differences)
    assert mnemonics(tmp_path / LOG) & INT8_PRODUCTS == KERNELS[form, cpu]


@pytest.mark.parametrize("form", ["onnx", "executorch"])
def test_tokens_are_pythons(
    runner: NativeRunner, int8_bundle: Bundle, python_tokens: dict[str, list[list[int]]], form: str
) -> None:
    entry, manifest = int8_bundle.format(form, "int8", "explicit"), int8_bundle.manifest
    golden = load_golden(int8_bundle.folder / manifest.golden.sentences)[:COUNT]
    asked = tuple(
        Sentence(source=g.source, max_length=manifest.decoding.longest(len(g.source), manifest.limits)) for g in golden
    )
    decoded = runner.run(request_of(entry, Decode(sentences=asked)), PATIENCE).result
    assert isinstance(decoded, Decoded)
    assert [list(hypothesis.tokens) for hypothesis in decoded.hypotheses] == python_tokens[form]
