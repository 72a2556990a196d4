"""The native runner against Python on the same bundle, and in it int8 against the modules as they train.

    python benchmarks/native_runner.py [MODEL_FOLDER] [--sentences 200] [--tokens 60] [--rounds 15]

1. Both translate the same sentences greedily: their tokens must be equal. 2. Both decode the same sources, interleaved,
on one thread; a token's time is the step and the choice of the next token. A round's figure is its median token, and
shown are medians over rounds, and of the ratios round by round. The naive side is that of benchmarks/precisions.py.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import statistics
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
import torch
from cached_decode import repeat
from precisions import export_naive, ratio

from lite_export.bundle_writer import write_bundle
from lite_export.loading import shipped_model
from lite_export.onnx_ops import describe
from lite_export.recipes import plan
from lite_runtime.bundle import MANIFEST, Bundle, open_bundle
from lite_runtime.host_device import HostDevice
from lite_runtime.manifest import FormatEntry
from lite_runtime.native_runner import NativeRunner
from lite_runtime.parity import translate_golden
from lite_runtime.runner_choice import runner_for
from lite_runtime.runner_protocol import Decode, Decoded, Measure, Measured, RunnerRequest, Sentence
from lite_runtime.session import Session
from lite_transformer.checkpoint import load_model

PATIENCE = 600.0
Source = tuple[int, ...]


def naive_bundle(model: Path, bundle: Bundle, target: Path) -> Bundle:
    """The bundle's fp32 form with its step in naive form."""
    entry = bundle.format("onnx", "fp32")
    shutil.copytree(bundle.folder, target)
    path = target / entry.step.file
    export_naive(load_model(model).eval(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    files = [
        f.model_copy(update={"sha256": digest, "bytes": path.stat().st_size}) if f.path == entry.step.file else f
        for f in entry.files
    ]
    entry = entry.model_copy(
        update={"step": describe(ir.load(path), entry.step.file), "files": tuple(files), "extras": {}}
    )
    manifest = bundle.manifest.model_copy(update={"formats": (entry,)})
    (target / MANIFEST).write_text(manifest.model_dump_json(), "utf8")
    return open_bundle(target)


def request(entry: FormatEntry, place: str, task: Decode | Measure) -> RunnerRequest:
    return RunnerRequest(
        bundle=place,
        format="onnx" if entry.format == "onnx" else "executorch",
        precision=entry.precision,
        cache=entry.cache,
        task=task,
    )


def equal_translations(runner: NativeRunner, bundle: Bundle, entry: FormatEntry, sources: Sequence[Source]) -> int:
    """How many sentences get the same tokens from both."""
    manifest = bundle.manifest
    longest = [manifest.decoding.longest(len(source), manifest.limits) for source in sources]
    asked = tuple(Sentence(source=s, max_length=most) for s, most in zip(sources, longest, strict=True))
    found = runner.run(request(entry, "bundle", Decode(sentences=asked)), PATIENCE).result
    assert isinstance(found, Decoded)
    session = bundle.session_of(entry, threads=1)
    # One at a time, as the runner does: at int8 a batch's padding rounds sums otherwise, which may turn a close choice.
    wanted = [
        translate_golden(session, [source], manifest.tokens, manifest.limits, manifest.decoding, 1)[0][0]
        for source in sources
    ]
    return sum(a.tokens == b.tokens for a, b in zip(found.hypotheses, wanted, strict=True))


def native_token(
    runner: NativeRunner, entry: FormatEntry, place: str, sources: tuple[Source, ...], tokens: int
) -> float:
    """Milliseconds of the median token in the native runner."""
    measured = runner.run(request(entry, place, Measure(sources=sources, tokens=tokens)), PATIENCE).result
    assert isinstance(measured, Measured)
    return statistics.median(step for timing in measured.timings for step in timing.steps)


def python_token(session: Session, start: int, eos: int, sources: tuple[Source, ...], tokens: int) -> float:
    """Milliseconds of the median token in Python."""
    times = []
    for source in sources:
        row = np.array([source])
        state, token = session.encode(row, np.ones_like(row, bool)), start
        for position in range(tokens):
            started = time.perf_counter()
            logits, state = session.step(np.array([token]), position, state)
            logits[0, eos] = -np.inf
            token = int(logits[0].argmax())
            times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=None, help="model folder; default: the shipped model")
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = args.model or shipped_model()
    with TemporaryDirectory() as temporary, HostDevice() as device, torch.inference_mode():
        recipes = plan(["onnx", "executorch"], ["fp32", "int8"], ["explicit"])
        write_bundle(folder, Path(temporary) / "bundle", recipes=recipes)
        bundle = open_bundle(Path(temporary) / "bundle")
        naive = naive_bundle(folder, bundle, Path(temporary) / "naive")
        runner = NativeRunner(device, runner_for(device.facts()).folder)
        runner.push_bundle(bundle, bundle.manifest.formats, "bundle")
        runner.push_bundle(naive, naive.manifest.formats, "naive")
        compare_translations(runner, bundle, folder, args.sentences)
        compare_times(runner, bundle, naive, args.tokens, args.rounds)


def compare_translations(runner: NativeRunner, bundle: Bundle, model: Path, count: int) -> None:
    lines = (model / "test.tsv").read_text("utf8").splitlines()[:count]
    tokenizer = bundle.tokenizer()
    sources = [tuple(tokenizer.encode(line.partition("\t")[0]).ids) for line in lines]
    for entry in bundle.manifest.formats:
        same = equal_translations(runner, bundle, entry, sources)
        print(f"{entry.format} {entry.precision}: {same} of {len(sources)} sentences get the same tokens", flush=True)


def compare_times(runner: NativeRunner, bundle: Bundle, naive: Bundle, tokens: int, rounds: int) -> None:
    limits, ids = bundle.manifest.limits, bundle.manifest.tokens
    rng = np.random.default_rng(0)
    length = min(tokens, limits.max_source) - 1
    vocabulary = bundle.manifest.vocabulary
    sources = tuple((*map(int, rng.integers(4, vocabulary, length)), ids.eos) for _ in range(3))
    sides = {"naive": partial(native_token, runner, naive.manifest.formats[0], "naive", sources, tokens)}
    for entry in bundle.manifest.formats:
        name, session = f"{entry.format} {entry.precision}", bundle.session_of(entry, threads=1)
        sides[name] = partial(native_token, runner, entry, "bundle", sources, tokens)
        sides[f"{name} in Python"] = partial(python_token, session, ids.start, ids.eos, sources, tokens)
    runs = dict(zip(sides, repeat(rounds, *sides.values()), strict=True))
    print(f"a token of {tokens}, 1 thread, median of {rounds} interleaved rounds")
    for name, times in runs.items():
        python = f"   {ratio(times, runs[f'{name} in Python']):5.2f}x Python" if f"{name} in Python" in runs else ""
        print(
            f"  {name:<26} {statistics.median(times):6.3f} ms   {ratio(times, runs['naive']):5.2f}x naive"
            f" ({min(times) / min(runs['naive']):5.2f}x by the quickest rounds){python}"
        )


if __name__ == "__main__":
    main()
