"""Which SentencePiece the native runner is built with, and that its folder brings all of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from native_runs import Run
from texts import sentences

from lite_runtime import runner_build, runner_sentencepiece
from lite_runtime.bundle import Bundle
from lite_runtime.runner_build import build_runner, default_output
from lite_runtime.runner_downloads import RunnerBuildError, run_tool
from lite_runtime.runner_folder import RunnerFolder, open_runner
from lite_runtime.runner_protocol import Translate, Translated
from lite_runtime.runner_sentencepiece import SentencePiece, find_sentencepiece
from requirements import require


@pytest.fixture(scope="module")
def installed(runner_folder: RunnerFolder) -> SentencePiece:
    """This computer's."""
    found = find_sentencepiece(runner_folder.note.target, None, None, here=True)
    require(None if found else "no SentencePiece in C++: apt install libsentencepiece-dev")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def named(installed: SentencePiece) -> Path:
    """A SentencePiece of one's own: an empty library in front, and all there is in another that only it needs.

    In the same place each time, so that the runner is compiled again only if something changed.
    """
    folder = default_output("sentencepiece-named")
    (folder / "include").mkdir(parents=True, exist_ok=True)
    (folder / "lib").mkdir(exist_ok=True)
    shutil.copy(installed.include / "sentencepiece_processor.h", folder / "include")
    shutil.copy(installed.linked, folder / "lib" / "libsentencepiece.so.0")
    (folder / "front.cpp").touch()
    options = ["-shared", "-fPIC", "-Wl,--no-as-needed", "-Wl,-soname,libfront.so.7", "-Wl,--build-id=none"]
    libraries = ["front.cpp", "lib/libsentencepiece.so.0", "-o", "lib/libsentencepiece.so"]
    run_tool(["c++", *options, *libraries], folder)
    return folder


def test_this_computer_s_own_is_found(runner_folder: RunnerFolder, installed: SentencePiece) -> None:
    assert runner_folder.note.text
    assert runner_folder.note.sentencepiece == str(installed.folder)


def test_a_named_one_comes_with_all_it_needs(
    named: Path, installed: SentencePiece, native_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is used again where nobody names one. Only ExecuTorch is there: what it does not need is not compiled."""
    package = runner_build._package
    monkeypatch.setattr(runner_build, "_package", lambda name: package(name) if name == "executorch" else None)
    target = runner_build.default_target()
    built = build_runner(target, default_output(f"{target}-named"), sentencepiece=named)
    assert built.note.formats == ("executorch",)
    told: list[str] = []
    assert build_runner(target, built.folder, told.append) == built
    assert told == ["without onnxruntime, which is not installed", f"{built.folder} is up to date"]

    copy = tmp_path / "copy"
    shutil.copytree(built.folder, copy)
    said = run_tool(["ldd", str(copy / "lite_runner")], tmp_path)
    for library in ("libfront.so.7", "libsentencepiece.so.0"):
        assert f"{library} => {copy}/{library}" in said
    assert not {"libc.so.6", "libstdc++.so.6"} & {path.name for path in copy.iterdir()}
    task = Translate(texts=tuple(sentences()[:3]), beam=1)
    result = Run(open_runner(copy), tmp_path)(native_bundle.folder, native_bundle.format("executorch"), task).result
    assert isinstance(result, Translated)
    assert all(text.text for text in result.texts)
    onnx = (
        f'{{"bundle": "{native_bundle.folder}", "format": "onnx", "precision": "fp32", "task": {{"kind": "replay"}}}}'
    )
    assert "this runner was built without onnx: build it with that runtime" in Run(built, tmp_path).refusal(onnx)


@pytest.mark.parametrize(
    ("target", "missing", "wanted"),
    [
        ("linux-x86_64", "include/sentencepiece_processor.h", "lib/libsentencepiece.so or lib/libsentencepiece.a"),
        ("linux-arm64", "lib/libsentencepiece.so", "lib/libsentencepiece.so or lib/libsentencepiece.a"),
        ("android-arm64", "lib/libsentencepiece.a", "lib/libsentencepiece.a"),
    ],
)
def test_a_folder_without_it(tmp_path: Path, target: str, missing: str, wanted: str) -> None:
    folder = tmp_path / "prefix"
    for name in ("include/sentencepiece_processor.h", "lib/libsentencepiece.so"):
        if name != missing:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    message = f"prefix has no SentencePiece for {target}: it needs include/sentencepiece_processor.h and {wanted}$"
    with pytest.raises(RunnerBuildError, match=message):
        build_runner(target, tmp_path / "runner", sentencepiece=folder)
    assert [path.name for path in tmp_path.iterdir()] == ["prefix"]


def test_of_several_the_target_s(tmp_path: Path) -> None:
    """Debian keeps those of several processors side by side; and what went away is looked for elsewhere."""
    header = tmp_path / "include" / "sentencepiece_processor.h"
    arm64 = tmp_path / "lib" / "aarch64-linux-gnu" / "libsentencepiece.so"
    common = tmp_path / "lib" / "libsentencepiece.a"
    for path in (header, arm64, common):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    libraries = {
        target: find_sentencepiece(target, tmp_path, None, here=False) for target in runner_sentencepiece._TRIPLETS
    }
    assert {target: found and found.linked for target, found in libraries.items()} == {
        "linux-x86_64": common,
        "linux-arm64": arm64,
        "android-arm64": common,
    }
    assert find_sentencepiece("linux-arm64", None, tmp_path, here=False) == libraries["linux-arm64"]
    header.unlink()
    assert find_sentencepiece("linux-arm64", None, tmp_path, here=False) is None
