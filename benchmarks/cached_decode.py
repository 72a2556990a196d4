"""What the incremental caches buy: a cached step against position, and a whole decode against full re-runs.

    python benchmarks/cached_decode.py [MODEL_FOLDER] [--tokens 60] [--rounds 7]

The side without caches runs the decoder over the encoder's output and the whole prefix for every token, as a
``(encoder_out, previous tokens) -> logits`` export does: in PyTorch, and as an ONNX graph in ONNX Runtime, fp32 and
int8. The source is as long as the translation. All sides run interleaved in one process on one thread. Two figures a
comparison: of the quickest rounds (position by position, for both sides: what the code costs when nothing disturbs it)
and of the median rounds (what it cost here). A step of one row reads every weight of the decoder, 13 MB in fp32: where
neighbours use up memory bandwidth, the cached fp32 side suffers most. Times are CPU times of the one thread that
computes, so that waiting for a busy machine does not count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from torch import nn
from torch.export import Dim

from lite_export.bundle_writer import write_bundle
from lite_export.loading import shipped_model
from lite_export.onnx_export import export_graph
from lite_export.onnx_quantize import quantize
from lite_export.recipes import plan
from lite_export.torch_session import TorchSession
from lite_runtime.bundle import open_bundle
from lite_runtime.onnx_graph import load_graph
from lite_runtime.session import Session
from lite_transformer.checkpoint import load_model
from lite_transformer.model import LiteTransformer

PRECISIONS = ("fp32", "int8")


def decode_cached(session: Session, source: np.ndarray, tokens: np.ndarray) -> list[float]:
    """CPU milliseconds of each step."""
    state = session.encode(source, source > 0)
    times = []
    for position, token in enumerate(tokens):
        start = time.thread_time()
        _, state = session.step(token[None], position, state)
        times.append((time.thread_time() - start) * 1e3)
    return times


class WholeDecoder(nn.Module):
    """``(tokens (B, T), memory (B, S, C), mask (B, S)) -> logits (B, T, V)``: a decoder that remembers nothing."""

    def __init__(self, model: LiteTransformer) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(self, tokens: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.decoder(tokens, torch.zeros(1, dtype=torch.long), self.decoder.start(memory, mask))[0]


def export_whole_decoder(model: LiteTransformer, folder: Path) -> dict[str, onnxruntime.InferenceSession]:
    """``WholeDecoder`` in ONNX Runtime by precision, for one sentence of any source and target length."""
    example = (torch.full((1, 7), 5), torch.zeros(1, 9, model.config.width), torch.ones(1, 9, dtype=torch.bool))
    target, source = Dim("target", min=2, max=model.config.max_target), Dim("source", min=2, max=256)
    axes: dict[str, object] = {"tokens": {1: target}, "memory": {1: source}, "mask": {1: source}}
    traced = export_graph(WholeDecoder(model), example, list(axes), ["logits"], axes)
    sessions = {}
    for precision in PRECISIONS:
        graph = traced.clone()
        quantize(graph, precision)
        ir.save(graph, folder / f"{precision}.onnx")
        sessions[precision] = load_graph(folder / f"{precision}.onnx", threads=1)
    return sessions


@torch.inference_mode()
def encoder_output(model: LiteTransformer, source: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Memory and mask, computed once for both sides that re-run."""
    mask = torch.from_numpy(source > 0)
    return model.encoder(torch.from_numpy(source), mask), mask


def rerun(decode: Callable[[np.ndarray], object], tokens: np.ndarray) -> list[float]:
    """CPU milliseconds of running ``decode`` over every prefix (the first token, which has no prefix, left out)."""
    times = []
    for length in range(2, len(tokens) + 1):
        start = time.thread_time()
        decode(tokens[None, :length])
        times.append((time.thread_time() - start) * 1e3)
    return times


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
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = args.model or shipped_model()
    model = load_model(folder)
    count = max(args.tokens, 104)
    tokens = np.random.default_rng(0).integers(4, model.config.target_vocab, count)
    source = tokens[None, : args.tokens]
    memory, mask = encoder_output(model, source)
    whole = WholeDecoder(model).eval()
    with TemporaryDirectory() as temporary, torch.inference_mode():
        write_bundle(folder, Path(temporary) / "bundle", recipes=plan(["onnx"], PRECISIONS))
        bundle, reference = open_bundle(Path(temporary) / "bundle"), TorchSession(model)
        cached = {precision: bundle.session("onnx", precision, threads=1) for precision in PRECISIONS}
        whole_onnx = export_whole_decoder(model, Path(temporary))
        given = {"memory": memory.numpy(), "mask": mask.numpy()}
        short = tokens[: args.tokens]
        sides: dict[tuple[str, str], Callable[[], list[float]]] = {
            ("PyTorch", "again"): lambda: rerun(lambda t: whole(torch.from_numpy(t), memory, mask), short),
            ("PyTorch", "cached"): lambda: decode_cached(reference, source, short),
        }
        for precision in PRECISIONS:
            graph, session = whole_onnx[precision], cached[precision]
            name = f"ONNX Runtime {precision}"
            sides[name, "again"] = partial(rerun, lambda t, g=graph: g.run(None, {"tokens": t, **given}), short)
            sides[name, "cached"] = partial(decode_cached, session, source, short)
        times = dict(zip(sides, repeat(args.rounds, *sides.values()), strict=True))
        long = repeat(args.rounds, *(partial(decode_cached, s, source, tokens) for s in cached.values()))
    print(f"{args.tokens} tokens, 1 thread, {args.rounds} interleaved rounds")
    for name in dict.fromkeys(name for name, _ in sides):
        report(name, times[name, "again"], times[name, "cached"])
    report("int8 cached, fp32 re-run", times["ONNX Runtime fp32", "again"], times["ONNX Runtime int8", "cached"])
    report("fp32 cached, PyTorch re-run", times["PyTorch", "again"], times["ONNX Runtime fp32", "cached"])
    for precision, runs in zip(PRECISIONS, long, strict=True):
        early = statistics.median(np.median(run[3:8]) for run in runs)
        late = statistics.median(np.median(run[98:103]) for run in runs)
        print(
            f"  {precision}: one cached step {early:.3f} ms at position 5, {late:.3f} ms at 100 ({late / early:.2f}x)"
        )


def report(name: str, again: list[list[float]], cached: list[list[float]]) -> None:
    """One comparison, as a line; each side has its rounds, a round the milliseconds of each position."""
    (quick, quick_cached), (usual, usual_cached) = (
        [sum(map(over_rounds, zip(*side, strict=True))) for side in (again, cached)]
        for over_rounds in (min, statistics.median)
    )
    print(
        f"  {name:<28} decoder re-run {quick:6.1f} ms   cached {quick_cached:6.1f} ms   {quick / quick_cached:5.1f}x"
        f"   median rounds {usual:6.1f} ms, {usual_cached:6.1f} ms, {usual / usual_cached:5.1f}x"
    )


if __name__ == "__main__":
    main()
