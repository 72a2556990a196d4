"""What the incremental caches buy: a cached step against position, and a whole decode against full re-runs.

    python benchmarks/cached_decode.py [BUNDLE_OR_MODEL] [--tokens 60] [--rounds 7]

Both sides run interleaved in one process on one thread; figures are medians, and the claim is their ratio.
The naive side is PyTorch re-running the whole decoder for every token, as a model without caches must.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from lite_export.bundle_writer import write_bundle
from lite_export.loading import shipped_model
from lite_export.torch_session import TorchSession
from lite_runtime.bundle import open_bundle
from lite_runtime.session import Session, State
from lite_transformer.checkpoint import load_model
from lite_transformer.model import LiteTransformer

SOURCE = np.arange(10, 30, dtype=np.int64)[None]


def decode_cached(session: Session, tokens: np.ndarray) -> list[float]:
    """Milliseconds of each step."""
    state: State = session.encode(SOURCE, SOURCE > 0)
    times = []
    for position, token in enumerate(tokens):
        start = time.perf_counter()
        _, state = session.step(token[None], position, state)
        times.append((time.perf_counter() - start) * 1e3)
    return times


@torch.inference_mode()
def decode_rerun(model: LiteTransformer, tokens: np.ndarray) -> float:
    """Milliseconds of a decode that runs the decoder over the whole prefix for every token."""
    source, target = torch.from_numpy(SOURCE), torch.from_numpy(tokens)[None]
    start_state = model.encode(source, source > 0)
    zero = torch.zeros(1, dtype=torch.long)
    start = time.perf_counter()
    for length in range(1, len(tokens) + 1):
        model.decoder(target[:, :length], zero, start_state)
    return (time.perf_counter() - start) * 1e3


def repeat(rounds: int, *sides: Callable[[], object]) -> list[list]:
    """Run the sides in turn, A B C A B C, after one warm-up of each."""
    for side in sides:
        side()
    results: list[list] = [[] for _ in sides]
    for _ in range(rounds):
        for kept, side in zip(results, sides, strict=True):
            kept.append(side())
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=None, help="model folder; default: the shipped model")
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = args.model or shipped_model()
    model = load_model(folder)
    count = max(args.tokens, 104)
    tokens = np.random.default_rng(0).integers(4, model.config.target_vocab, count)
    with TemporaryDirectory() as temporary:
        write_bundle(folder, Path(temporary) / "bundle")
        onnx = open_bundle(Path(temporary) / "bundle").session(threads=1)
        short = tokens[: args.tokens]
        rerun, cached, onnx_cached, long_torch, long_onnx = repeat(
            args.rounds,
            lambda: decode_rerun(model, short),
            lambda: sum(decode_cached(TorchSession(model), short)),
            lambda: sum(decode_cached(onnx, short)),
            lambda: decode_cached(TorchSession(model), tokens),
            lambda: decode_cached(onnx, tokens),
        )
    print(f"{args.tokens} tokens, 1 thread, median of {args.rounds} interleaved rounds")
    full = statistics.median(rerun)
    print(f"  PyTorch, decoder re-run for every token  {full:8.1f} ms")
    for name, times in (("PyTorch, cached", cached), ("ONNX Runtime, cached", onnx_cached)):
        ratio = statistics.median(a / b for a, b in zip(rerun, times, strict=True))
        print(f"  {name:<40} {statistics.median(times):8.1f} ms   {ratio:5.1f}x faster")
    for name, runs in (("PyTorch", long_torch), ("ONNX Runtime", long_onnx)):
        early = statistics.median(np.median(run[3:8]) for run in runs)
        late = statistics.median(np.median(run[98:103]) for run in runs)
        print(f"one cached step, {name}: {early:.3f} ms at position 5, {late:.3f} ms at 100 ({late / early:.2f}x)")


if __name__ == "__main__":
    main()
