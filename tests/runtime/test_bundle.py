"""A bundle opens when it is whole, and says what is wrong when it is not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lite_runtime.bundle import MANIFEST, BundleError, open_bundle


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def edit(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def test_a_whole_bundle_translates(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    (translation,) = bundle.translator(threads=1).translate(["It is late.\n"])
    assert translation.sentences[0].source == "It is late."
    assert translation.text.endswith("\n")


def test_formats_are_found_by_name_and_precision(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    first = bundle.manifest.formats[0]
    assert (
        bundle.format()
        is bundle.format("onnx")
        is bundle.format(None, "fp32")
        is bundle.format("onnx", "fp32")
        is first
    )
    with pytest.raises(BundleError, match="has no onnx int8; it has: onnx fp32"):
        bundle.format("onnx", "int8")
    with pytest.raises(BundleError, match="has no coreml"):
        bundle.session("coreml")


def test_a_missing_folder_or_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle at .*gone: no such folder"):
        open_bundle(tmp_path / "gone")
    with pytest.raises(BundleError, match=r"it has no manifest\.json"):
        open_bundle(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_no_json_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match="cannot read"):
        open_bundle(bundle)


@pytest.mark.parametrize("content", ["[]", "{}", "3"])
def test_a_manifest_of_something_else_is_refused(bundle: Path, content: str) -> None:
    (bundle / MANIFEST).write_text(content)
    with pytest.raises(BundleError, match="it has no schema_version"):
        open_bundle(bundle)


@pytest.mark.parametrize("version", [7, 0, "1", None])
def test_another_schema_version_is_refused(bundle: Path, version: object) -> None:
    # Newer manifests have other keys too: the version must be looked at first.
    edit(bundle, lambda m: m.update(schema_version=version, novelty=1))
    with pytest.raises(BundleError, match=f"bundle has schema {version}, this version reads 2: upgrade lite-export"):
        open_bundle(bundle)


def test_an_invalid_manifest_names_the_field(bundle: Path) -> None:
    edit(bundle, lambda m: m["tokens"].update(pad="x"))
    with pytest.raises(BundleError, match=r"not a valid manifest: tokens\.pad"):
        open_bundle(bundle)


@pytest.mark.parametrize("path", ["../outside.bin", "/etc/hostname", "a/../../b", "C:\\x", "..\\x", "\\\\host\\x"])
def test_paths_that_leave_the_bundle_are_refused(bundle: Path, path: str) -> None:
    edit(bundle, lambda m: m["files"][0].update(path=path))
    with pytest.raises(BundleError, match="outside the bundle"):
        open_bundle(bundle, verify=False)


@pytest.mark.parametrize("part", [("text", "tokenizer"), ("formats", 0, "step", "file"), ("golden", "steps")])
def test_files_that_no_checksum_covers_are_refused(bundle: Path, part: tuple[str | int, ...]) -> None:
    (bundle / "other").write_bytes(b"x")

    def change(manifest: Any) -> None:
        for key in part[:-1]:
            manifest = manifest[key]
        manifest[part[-1]] = "other"

    edit(bundle, change)
    with pytest.raises(BundleError, match="uses other but does not list it"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["tokenizer.model", "onnx/fp32/step.onnx", "onnx/fp32/weights.bin"])
def test_every_file_is_checked(bundle: Path, name: str) -> None:
    path = bundle / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match=f"{name} has {len(whole) - 1} bytes instead of {len(whole)}"):
        open_bundle(bundle, verify=False)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    open_bundle(bundle, verify=False)
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        open_bundle(bundle)
    path.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        open_bundle(bundle, verify=False)


def test_a_missing_runtime_names_its_extra(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BundleError, match=r"pip install 'lite-export\[onnx\]'"):
        open_bundle(tiny_bundle).session()
