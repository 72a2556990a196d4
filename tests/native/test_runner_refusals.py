"""What the native runner cannot use, it refuses: exit code 2, one clear message, no result."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from native_runs import Run, sign_again

from lite_runtime.bundle import Bundle, open_bundle


def request(folder: Path, form: str = "onnx", /, **changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "bundle": str(folder),
        "format": form,
        "precision": "fp32",
        "task": {"kind": "replay"},
    } | changes


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in request(Path("b")).items() if name != key}


def decode(source: list[int], max_length: Any = 5, **options: Any) -> dict[str, Any]:
    return {"kind": "decode", "sentences": [{"source": source, "max_length": max_length}], **options}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "request.json is no whole JSON file"),
        ('{"version": 1, "bundle', "request.json is no whole JSON file"),
        ("[]", "request.json is no JSON object"),
        (without("bundle"), "bundle is missing"),
        (without("format"), "format is missing"),
        (without("task"), "task is missing"),
        (request(Path("b"), version=2), "version is 2, this runner speaks 1: build the runner again"),
        (request(Path("b"), threads=0), "threads is out of range: 0"),
        (request(Path("b"), thread=1), "thread is not known"),
        (request(Path("b"), bundle=3), "bundle is no string"),
        (
            request(Path("b"), task={"kind": "dance"}),
            "task: kind is dance; there are: decode, translate, replay, measure",
        ),
        (request(Path("b"), task={"kind": "replay", "x": 1}), "task: x is not known"),
        (request(Path("b"), task={"kind": "decode"}), "task: sentences is missing"),
        (request(Path("b"), task=decode([])), "sentences.0: source is empty"),
        (request(Path("b"), task=decode([5, 2], 0)), "sentences.0: max_length is out of range: 0"),
        (request(Path("b"), task=decode([5, 2], 1.5)), "sentences.0: max_length is no whole number"),
        (request(Path("b"), task=decode([5, 2], 1 << 40)), "max_length is out of range"),
        (request(Path("b"), task=decode([5, 2], beam=0)), "task: beam is out of range: 0"),
        (request(Path("b"), task=decode([5, 2], length_penalty="1")), "length_penalty is no number"),
        (request(Path("b"), task={"kind": "measure", "sources": [], "tokens": 3}), "sources is empty"),
        (request(Path("b"), task={"kind": "measure", "sources": [[]], "tokens": 3}), "sources holds an empty one"),
        (request(Path("b"), task={"kind": "measure", "sources": [5], "tokens": 3}), "sources is no list of lists"),
        (request(Path("b"), task={"kind": "measure", "sources": [[5]]}), "task: tokens is missing"),
        (request(Path("b")), "no bundle at b: no such folder"),
    ],
)
def test_requests(run: Run, content: str | dict[str, Any], message: str) -> None:
    assert message in run.refusal(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "int4"}, "has no onnx int4 explicit; it has: onnx fp32 explicit, "),
        ({"cache": "stateful"}, "has no onnx fp32 stateful; it has: "),
        ({"format": "coreml"}, "has no coreml fp32 explicit; it has: "),
        ({"task": decode([5] * 65)}, "a source has 65 tokens, the bundle takes 64: use shorter sentences"),
        ({"task": decode([5, 2], 48)}, "49 target tokens are asked for, eos included, the bundle takes 48"),
        ({"task": {"kind": "measure", "sources": [[5, 2]], "tokens": 49}}, "49 target tokens are asked for"),
        ({"task": decode([999, 2])}, "ONNX Runtime cannot encode: "),
        ({"task": decode([-999, 2])}, "ONNX Runtime cannot encode: "),
        ({"task": decode([999, 2]), "format": "executorch"}, "ExecuTorch cannot encode executorch/fp32.pte: "),
        (
            {"task": decode([5, 2], beam=2), "format": "executorch", "cache": "stateful"},
            "keeps its state inside, and ExecuTorch cannot copy it: search greedily",
        ),
    ],
)
def test_what_a_bundle_cannot_do(run: Run, native_bundle: Bundle, changes: dict[str, Any], message: str) -> None:
    assert message in run.refusal(json.dumps(request(native_bundle.folder, **changes)))


def edit(manifest: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        manifest = manifest[int(name) if name.isdigit() else name]
    if value is None:
        del manifest[last]
    else:
        manifest[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema_version", 1, "schema_version is 1, this runner reads 2"),
        ("schema_version", None, "schema_version is missing"),
        ("tokens", None, "tokens is missing"),
        ("tokens.eos", 160, "the manifest's token ids are outside the model's vocabulary"),
        ("tokens.pad", -1, "the manifest's token ids are outside the model's vocabulary"),
        ("limits.max_source", "64", "limits: max_source is no whole number"),
        ("golden.steps", "../steps", "steps is ../steps, which is outside the bundle: do not use this bundle"),
        ("formats.0.step.file", "/etc/passwd", "file is /etc/passwd, which is outside the bundle"),
        ("formats.0.step.file", "onnx/fp32/nothing.onnx", "ONNX Runtime cannot load "),
        ("formats.0.state.0.name", None, "formats.0: state.0: name is missing"),
        ("formats.0.state.0.name", "nothing", "ONNX Runtime cannot step: "),
        ("formats.0.state.0.dtype", "float16", "dtype is float16; this runner carries float32 only"),
        ("formats.0.state.0.batch_axis", 9, "batch_axis is no axis of its shape"),
        ("formats.0.state.0.shape", [1, 2, "x", 4], "the manifest does not say how large self_key.0 is"),
        ("formats.0.files.0.sha256", "0" * 64, "is damaged (its sha256 differs): copy it again"),
        ("formats.0.files.0.bytes", 5, "bytes instead of 5: copy it again"),
    ],
)
def test_manifests(run: Run, native_bundle: Bundle, tmp_path: Path, path: str, value: Any, message: str) -> None:
    changed = copied(native_bundle, tmp_path)
    manifest = json.loads((changed / "manifest.json").read_text("utf8"))
    edit(manifest, path, value)
    (changed / "manifest.json").write_text(json.dumps(manifest), "utf8")
    assert message in run.refusal(json.dumps(request(changed, task=decode([5, 6, 2]))))


def copied(bundle: Bundle, folder: Path) -> Path:
    shutil.copytree(bundle.folder, folder / "changed")
    return folder / "changed"


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_manifest_cut_short(run: Run, native_bundle: Bundle, tmp_path: Path, part: float) -> None:
    manifest = copied(native_bundle, tmp_path) / "manifest.json"
    content = manifest.read_bytes()
    manifest.write_bytes(content[: int(len(content) * part)])
    assert "manifest.json is no whole JSON file" in run.refusal(json.dumps(request(manifest.parent)))


@pytest.mark.parametrize("form", ["onnx", "executorch"])
@pytest.mark.parametrize("damage", ["removed", "cut", "changed"])
def test_a_damaged_model_is_told_by_its_hash(
    run: Run, native_bundle: Bundle, tmp_path: Path, form: str, damage: str
) -> None:
    changed = copied(native_bundle, tmp_path)
    path = changed / native_bundle.format(form, "fp32").step.file
    content = path.read_bytes()
    path.unlink()
    if damage != "removed":
        path.write_bytes(content[:-1] if damage == "cut" else content[:200] + b"!" + content[201:])
    wanted = {"removed": "is missing", "cut": f"has {len(content) - 1} bytes", "changed": "is damaged"}[damage]
    assert wanted in run.refusal(json.dumps(request(changed, form)))


@pytest.mark.parametrize("form", ["onnx", "executorch"])
@pytest.mark.parametrize("content", [b"", b"not a model", bytes(4096)])
def test_what_is_no_model(run: Run, native_bundle: Bundle, tmp_path: Path, form: str, content: bytes) -> None:
    """Its hash is right: the runtime itself must refuse it, and its words come through."""
    changed = copied(native_bundle, tmp_path)
    path = changed / native_bundle.format(form, "fp32").step.file
    path.write_bytes(content)
    sign_again(changed, path)
    said = run.refusal(json.dumps(request(changed, form)))
    assert re.search(r"(ONNX Runtime|ExecuTorch) cannot load .{20}", said), said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "steps.safetensors is cut short"),
        (b"\xff" * 100, "steps.safetensors is cut short"),
        (b"\x02" + bytes(7) + b"{}", "steps.safetensors has no script/source"),
        (b"\x02" + bytes(7) + b"{]", "steps.safetensors is no whole JSON file"),
        (None, "data_offsets do not fit its shape or the file"),
    ],
)
def test_damaged_golden_steps(
    run: Run, native_bundle: Bundle, tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = copied(native_bundle, tmp_path) / native_bundle.manifest.golden.steps
    path.write_bytes(path.read_bytes()[:-4] if content is None else content)
    sign_again(tmp_path / "changed", path)
    assert message in run.refusal(json.dumps(request(tmp_path / "changed")))


def test_a_result_that_cannot_be_written(run: Run, native_bundle: Bundle, tmp_path: Path) -> None:
    asked = json.dumps(request(native_bundle.folder))
    assert "No such file or directory" in run.refusal(asked, tmp_path / "nowhere" / "result.json")
    (tmp_path / "folder").mkdir()
    assert "cannot write" in run.refusal(asked, tmp_path / "folder")


def test_a_wrong_call_tells_the_right_one(run: Run) -> None:
    done = subprocess.run(run.runner.command(str(run.runner.folder)), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "usage: lite_runner REQUEST.json RESULT.json\n")


@pytest.mark.skipif(sys.platform != "linux", reason="a small disk of its own needs Linux's namespaces")
def test_a_full_disk_leaves_nothing(run: Run, native_bundle: Bundle, tmp_path: Path) -> None:
    """A real file system of 4 kB, where some hundred differences have no room."""
    (tmp_path / "request.json").write_text(json.dumps(request(native_bundle.folder)))
    disk = tmp_path / "disk"
    disk.mkdir()
    program = " ".join(run.runner.command(str(run.runner.folder)))
    script = (
        f"mount -t tmpfs -o size=4k none {disk} && {program} {tmp_path}/request.json {disk}/result.json;"
        f" code=$?; ls -A {disk}; exit $code"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done
    assert done.stderr == f"lite_runner: cannot write {disk}/result.json: No space left on device\n"
    assert done.stdout == ""


def test_nobody_else_s_files_are_touched(run: Run, native_bundle: Bundle) -> None:
    """An earlier result stays as it was where the next run is refused."""
    run.result.write_text("before")
    os.utime(run.result, (1, 1))
    run.refusal(json.dumps(request(native_bundle.folder, precision="int4")))
    assert run.result.read_text() == "before"
    assert open_bundle(native_bundle.folder).manifest == native_bundle.manifest
