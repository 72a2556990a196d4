"""A plain Transformer leaves PyTorch as a Lite one does: states without windows, in every format."""

from __future__ import annotations

from pathlib import Path

import pytest

from lite_export.bundle_writer import write_bundle
from lite_export.recipes import plan
from lite_export.reference import reference_session
from lite_runtime.bundle import open_bundle
from lite_runtime.ladder import climb
from tiny_models import plain_config, write_tiny_folder


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_plain_bundle_passes_parity(norm: str, tmp_path: Path) -> None:
    formats = ["onnx", "executorch", "coreml"] if norm == "pre" else ["onnx"]
    folder = write_tiny_folder(tmp_path / "model", plain_config(norm))
    write_bundle(folder, tmp_path / "bundle", recipes=plan(formats, ["fp32"]))
    bundle = open_bundle(tmp_path / "bundle")
    assert [entry.format for entry in bundle.manifest.formats] == formats
    for entry in bundle.manifest.formats:
        kinds = {state.kind for state in entry.state}
        assert kinds == {"self_kv", "cross_kv", "cross_mask"}
    report = climb(bundle, reference_session(bundle, folder))
    assert report.passed, report
    assert all(rung.checked > 10 for found in report.formats for rung in found.rungs)
