"""The exported files: sizes, dynamic axes, sharing, and errors that leave nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from lite_export import bundle_writer, onnx_export
from lite_export.bundle_writer import write_bundle
from lite_export.errors import ExportError
from lite_export.graphs import state_specs
from lite_export.onnx_export import export_onnx
from lite_export.reference import reference_session
from lite_export.torch_session import TorchSession
from lite_runtime.bundle import BundleError, open_bundle
from lite_runtime.ladder import climb
from lite_runtime.manifest import FormatEntry
from lite_runtime.onnx_session import OnnxSession
from lite_runtime.recording import make_script, play
from lite_transformer.checkpoint import CheckpointError
from lite_transformer.config import ModelConfig
from lite_transformer.model import LiteTransformer
from lite_transformer.presets import preset
from tiny_models import lively_model, tiny_config


def test_bundle_passes_parity_live_and_recorded(tiny_bundle: Path, tiny_folder: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    for reference in (reference_session(bundle, tiny_folder), None):
        report = climb(bundle, reference)
        assert report.passed, report
        assert all(rung.checked > 10 for rung in report.formats[0].rungs)


def test_every_weight_is_stored_once(tiny_bundle: Path, tiny_folder: Path) -> None:
    """The table that embeds the source, embeds the target and projects to the vocabulary is one run of bytes."""
    contents: dict[tuple[int, int], bytes] = {}
    for name in ("encode", "step"):
        for value in ir.load(tiny_bundle / "onnx" / "fp32" / f"{name}.onnx").graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                contents[tensor.offset, tensor.length] = tensor.tobytes()
    assert len(set(contents.values())) == len(contents)
    table = 160 * 16 * 4
    assert sum(len(c) == table for c in contents.values()) == 1


def test_graphs_carry_no_trace_of_the_exporting_machine(tiny_bundle: Path) -> None:
    for path in (tiny_bundle / "onnx" / "fp32").glob("*.onnx"):
        content = path.read_bytes()
        assert str(Path(bundle_writer.__file__).parent).encode() not in content
        assert b"stack_trace" not in content


@pytest.mark.parametrize(("convolution", "norm"), [("dynamic", "post")])
def test_dynamic_convolution_and_post_norm(tmp_path: Path, convolution: str, norm: str) -> None:
    """Shapes that were not the example's: one row, one source word, many rows, long sources."""
    config = tiny_config(convolution, norm)
    model = lively_model(config)
    encode, step = export_onnx(model, tmp_path)["fp32"]
    entry = FormatEntry(format="onnx", precision="fp32", files=(), encode=encode, step=step, state=state_specs(config))
    session, reference = OnnxSession(tmp_path, entry), TorchSession(model)
    rng = np.random.default_rng(0)
    for lengths in ([1], [64], [3, 64, 1, 20, 7]):
        sources = [rng.integers(4, 160, n).tolist() for n in lengths]
        outputs = [rng.integers(4, 160, 47).tolist() for _ in lengths]
        script = make_script(sources, outputs, start=2, pad=1)
        for expected, actual in zip(play(reference, script), play(session, script), strict=True):
            for name, tensor in expected.state.items():
                np.testing.assert_allclose(actual.state[name], tensor, atol=1e-4, err_msg=f"{expected.step} {name}")
            if expected.logits is not None:
                np.testing.assert_allclose(actual.logits, expected.logits, atol=1e-4)


def test_language_model_is_refused(tmp_path: Path) -> None:
    config = tiny_config()
    decoder = config.decoder.model_copy(update={"cross_heads": 0})
    model = LiteTransformer(ModelConfig(**{**config.model_dump(), "encoder": None, "decoder": decoder.model_dump()}))
    with pytest.raises(ExportError, match="no encoder"):
        export_onnx(model, tmp_path)


def test_state_specs_cover_every_kind() -> None:
    specs = state_specs(preset("phone").config)
    assert {s.kind for s in specs} == {"self_kv", "cross_kv", "conv_window", "cross_mask"}
    assert len({s.name for s in specs}) == len(specs) == 11


def test_other_weights_are_refused(tiny_bundle: Path, tmp_path: Path, tiny_folder: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in tiny_folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    from lite_transformer.checkpoint import unique_weights, write_model

    config = tiny_config()
    write_model(other, config, unique_weights(lively_model(config, seed=1)), torch.float32)
    with pytest.raises(CheckpointError, match="other weights"):
        reference_session(open_bundle(tiny_bundle), other)


def _whole(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_failure_in_the_middle_leaves_the_old_bundle(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C (KeyboardInterrupt) and a full disk while the graphs are written."""
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "manifest.json").write_text("old")
    for failure in (KeyboardInterrupt(), OSError(28, "No space left on device")):

        def fail(_model: object, folder: Path, _precisions: object, failure: BaseException = failure) -> None:
            (folder / "weights.bin").write_bytes(b"half of it")
            raise failure

        monkeypatch.setattr(onnx_export, "export_onnx", fail)
        with pytest.raises(type(failure)):
            write_bundle(tiny_folder, target)
        assert _whole(tmp_path) == ["bundle"]
        assert (target / "manifest.json").read_text() == "old"


def test_errors_before_any_work(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("words")
    with pytest.raises(ExportError, match="is no bundle"):
        write_bundle(tiny_folder, tmp_path / "precious")
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.json"):
        write_bundle(tmp_path / "nothing", tmp_path / "b")
    assert _whole(tmp_path) == ["precious"]


def test_bundle_with_a_flipped_byte_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copy)
    weights = copy / "onnx" / "fp32" / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match=r"weights\.bin is damaged"):
        open_bundle(copy)


def test_manifest_matches_its_files_and_graphs(tiny_bundle: Path) -> None:
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    on_disk = {p.relative_to(tiny_bundle).as_posix() for p in tiny_bundle.rglob("*") if p.is_file()}
    listed = {f["path"] for f in manifest["files"]} | {f["path"] for e in manifest["formats"] for f in e["files"]}
    assert listed == on_disk - {"manifest.json"}
    entry = manifest["formats"][0]
    assert [i["name"] for i in entry["step"]["inputs"]] == ["tokens", "position", *(s["name"] for s in entry["state"])]
