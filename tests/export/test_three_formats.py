"""One command, three formats: exported together, compared with PyTorch together, and broken one by one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lite_runtime.bundle import open_bundle, sha256_of
from lite_transformer.checkpoint import load_model
from lite_transformer.model import LiteTransformer

FORMATS = ("onnx", "coreml", "executorch")
EXPORT = ("export", "--to", ",".join(FORMATS), "--precision", "fp32,int8")


def run(*arguments: object) -> tuple[int, str]:
    """In a process of its own: without the tests' shape checks an interpreted Core ML package is five times quicker."""
    done = subprocess.run(
        [sys.executable, "-m", "lite_export.cli", *(str(a) for a in arguments)], capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def bundle(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("three") / "bundle"
    code, output = run(*EXPORT, tiny_folder, "--output", target)
    assert code == 0, output
    return target


def test_all_are_in_one_bundle(bundle: Path) -> None:
    """The notes tell what of ExecuTorch's methods XNNPACK runs."""
    formats = open_bundle(bundle).manifest.formats
    assert [(f.format, f.precision) for f in formats] == [(f, p) for f in FORMATS for p in ("fp32", "int8")]
    assert [len(f.notes) for f in formats] == [0, 0, 0, 0, 2, 2]
    assert all("operations in XNNPACK (1 call)" in note for f in formats for note in f.notes)


def test_all_compute_what_pytorch_computes(bundle: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """At fp32 to the token; the random weights of a tiny model are no measure for what 8 bits cost."""
    report = tmp_path / "report.json"
    code, output = run("parity", bundle, "--model", tiny_folder, "--precision", "fp32", "--json", report)
    assert code == 0, output
    found = json.loads(report.read_text())["formats"]
    assert [f["format"] for f in found] == list(FORMATS)
    for each in found:
        names = [rung["name"] for rung in each["rungs"]]
        assert names[:5] == ["outputs", "steps", "layers", "tokens", "hypotheses"]
        assert all(rung["passed"] and rung["checked"] > 0 for rung in each["rungs"])


def damage(path: Path, model: LiteTransformer) -> None:
    """Half of the token table becomes zeros; a checksum made afterwards cannot tell."""
    content = path.read_bytes()
    table = model.decoder.embedding.weight.detach().numpy().tobytes()
    assert content.count(table) == 1
    path.write_bytes(content.replace(table, table[: len(table) // 2].ljust(len(table), b"\0")))


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("onnx", "fp32/weights.bin"), ("coreml", "fp32-stateful.mlpackage/**/weight.bin"), ("executorch", "fp32.pte")],
)
def test_a_damaged_weight_is_named_in_every_format(
    bundle: Path, tiny_folder: Path, tmp_path: Path, name: str, pattern: str
) -> None:
    """Steps and layers tell where it shows first."""
    changed = tmp_path / "changed"
    shutil.copytree(bundle, changed)
    (path,) = (changed / name).glob(pattern)
    damage(path, load_model(tiny_folder))
    _sign_again(changed, path)
    code, output = run("parity", changed, "--model", tiny_folder, "--precision", "fp32", "--format", name)
    assert code == 1
    breaches = [line for line in output.splitlines() if line.startswith(f"breach {name} fp32")]
    assert any("steps: first at" in line for line in breaches), output
    assert any("layers: first at" in line and "coder_layer." in line for line in breaches), output


def _sign_again(bundle: Path, path: Path) -> None:
    """The manifest as it would be had the exporter written these bytes."""
    relative = path.relative_to(bundle).as_posix()
    manifest = json.loads((bundle / "manifest.json").read_text("utf8"))
    for entry in manifest["formats"]:
        for file in entry["files"]:
            if file["path"] == relative:
                file["sha256"] = sha256_of(path)
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf8")


def test_ctrl_c_stops_all_of_them_and_leaves_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    """As a terminal does it: the signal goes to every process of the group."""
    command = [sys.executable, "-m", "lite_export.cli", *EXPORT, str(tiny_folder), "--output", "bundle"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".*.partial/*/")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="a small disk of its own needs Linux's namespaces")
def test_a_full_disk_leaves_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    """A real file system of 400 kB: room for the tokenizer, not for what is exported after it."""
    script = (
        f"mount -t tmpfs -o size=400k none {tmp_path} && cd {tmp_path}"
        f' && {sys.executable} -m lite_export.cli "$@"; code=$?; ls -A {tmp_path}; exit $code'
    )
    command = (*EXPORT[:2], "executorch", tiny_folder, "--output", "bundle")
    words = ["unshare", "-rm", "sh", "-c", script, "export", *(str(word) for word in command)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert "bundle" not in done.stdout
