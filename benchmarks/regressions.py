"""Does ``lite-export bench`` see what is there, and nothing else?

    python benchmarks/regressions.py [--precision int8] [--runs 10] [--blocks 30] [--slower 10]

The shipped model's bundle is measured against itself, and against itself slowed on purpose, in turn. Of the first, the
ratio's interval must contain 1 and no regression beyond 5 % may be called; of the second, one must be called, every
time. The slowed bundle computes hyperbolic tangents of its logits and adds nothing of them; how many is found by
measuring.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir

from lite_export.bundle_writer import write_bundle
from lite_export.loading import shipped_model
from lite_export.recipes import plan as recipes
from lite_runtime.bench import Bench
from lite_runtime.bench_plan import BenchOptions, make_plan
from lite_runtime.bench_result import Ratio
from lite_runtime.bundle import MANIFEST, open_bundle, sha256_of
from lite_runtime.host_device import HostDevice
from lite_runtime.runner_choice import runner_for

# Operations that are added; what each computes on is what is calibrated.
OPERATIONS = 8
LIMIT = 0.05


def slow_down(bundle: Path, target: Path, elements: int) -> Path:
    """A copy of a bundle whose ONNX step takes longer for the same result."""
    shutil.copytree(bundle, target)
    manifest = json.loads((target / MANIFEST).read_text("utf8"))
    for entry in manifest["formats"]:
        path = target / entry["step"]["file"]
        model = ir.load(path)
        add_work(model.graph, elements)
        ir.save(model, path)
        for file in entry["files"]:
            if file["path"] == entry["step"]["file"]:
                file.update(bytes=path.stat().st_size, sha256=sha256_of(path))
    (target / MANIFEST).write_text(json.dumps(manifest), "utf8")
    return target


def add_work(graph: ir.Graph, elements: int) -> None:
    """logits + 0 * the sum of tanh(tanh(...)) of the first so many logits."""
    logits = next(value for value in graph.outputs if value.name == "logits")
    numbers = [constant(graph, np.array(n, np.int64)) for n in ([0], [elements], [1])]
    part = insert(graph, "Slice", [logits, *numbers])
    for _ in range(OPERATIONS):
        part = insert(graph, "Tanh", [part])
    total = insert(graph, "ReduceSum", [part, numbers[2]])
    nothing = insert(graph, "Mul", [total, constant(graph, np.array(0, np.float32))])
    result = insert(graph, "Add", [logits, nothing])
    result.dtype, result.shape = logits.dtype, logits.shape
    logits.name, result.name = "quick_logits", "logits"
    graph.outputs[list(graph.outputs).index(logits)] = result


def insert(graph: ir.Graph, operation: str, inputs: list[ir.Value]) -> ir.Value:
    node = ir.node(operation, inputs)
    graph.append(node)
    return node.outputs[0]


def constant(graph: ir.Graph, value: np.ndarray) -> ir.Value:
    node = ir.node("Constant", [], {"value": ir.tensor(value)})
    graph.append(node)
    return node.outputs[0]


def compare(ours: Path, theirs: Path, rounds: int) -> Ratio:
    """The ratio of their steps, measured interleaved."""
    plan = make_plan([open_bundle(ours)], open_bundle(theirs), BenchOptions(rounds=rounds))
    with HostDevice() as device, TemporaryDirectory() as temporary:
        runner = runner_for(device.facts()).folder
        result, _ = Bench(plan, device, runner, Path(temporary) / "journal.jsonl", limit=LIMIT).run()
    return next(ratio for ratio in result.ratios if ratio.metric == "per_token")


def calibrated(bundle: Path, folder: Path, slower: float, rounds: int) -> Path:
    """A bundle slowed down by that share: measured with all logits, then with as many as that asks for."""
    vocabulary = open_bundle(bundle).manifest.vocabulary
    cost = compare(slow_down(bundle, folder / "probe", vocabulary), bundle, rounds).estimate.value - 1
    elements = round(vocabulary * slower / cost)
    print(f"tanh of {vocabulary} logits, {OPERATIONS} times: {cost:.1%} slower; so of {elements} for {slower:.0%}")
    return slow_down(bundle, folder / "slow", elements)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--slower", type=float, default=10, help="per cent")
    args = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundle = folder / "bundle"
        write_bundle(shipped_model(), bundle, recipes=recipes(["onnx"], [args.precision]))
        slow = calibrated(bundle, folder, args.slower / 100, args.blocks)
        contained = called = wrong = 0
        for run in range(args.runs):
            same, slowed = compare(bundle, bundle, args.blocks), compare(slow, bundle, args.blocks)
            contained += same.estimate.low <= 1 <= same.estimate.high
            wrong += same.regressed
            called += slowed.regressed
            print(f"run {run + 1}: itself {show(same)}, slowed {show(slowed)}", flush=True)
    print(f"against itself: 1 in the interval {contained} of {args.runs}, called a regression {wrong} of {args.runs}")
    print(f"slowed by {args.slower:g} %: called a regression beyond {LIMIT:.0%} {called} of {args.runs}")


def show(ratio: Ratio) -> str:
    estimate = ratio.estimate
    return f"{estimate.value:.3f} ({estimate.low:.3f}-{estimate.high:.3f})"


if __name__ == "__main__":
    main()
