"""What an update of a training costs here: bfloat16 against fp32, and a banded product against a depthwise convolution.

    python benchmarks/training.py [--sentences 200] [--rounds 9]

Whole updates (loss, gradient, optimizer) of the shipped En-Fr model on sentences of its test set, on one thread. Then
the convolution of a branch by itself, forward and gradient, 31 taps: as the model computes it, one banded product, and
as ``conv1d`` does. The sides of a comparison take turns; ratios of the medians of the thread's CPU time. The first
ratio depends on the processor: one with matrix units for bfloat16 (AMX) makes it small, one that emulates bfloat16
large.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import sentencepiece
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from lite_export.loading import shipped_model
from lite_transformer.checkpoint import TOKENIZER, load_model
from lite_transformer.convolution import ConvolutionBranch
from lite_transformer.training.allocator import keep_freed_memory
from lite_transformer.training.corpus import read_pairs
from lite_transformer.training.objective import Objective

WIDTH, HEADS, KERNEL, FRAMES = 128, 8, 31, 25


def batch(sentences: int) -> list[Tensor]:
    """Source, decoder input and labels of some of the longer test sentences; ids 1 and 2 are padding and eos."""
    folder = shipped_model()
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(folder / TOKENIZER))
    pairs = sorted(read_pairs(folder / "test.tsv"), key=lambda pair: len(pair[1]))[-sentences - 50 : -50]
    sources, targets = ([tokenizer.encode(pair[side]) for pair in pairs] for side in (0, 1))
    rows = [[[*s, 2] for s in sources], [[2, *t] for t in targets], [[*t, 2] for t in targets]]
    return [pad_sequence([torch.tensor(ids) for ids in side], batch_first=True, padding_value=1) for side in rows]


def updates(precision: str, tensors: list[Tensor]) -> Callable[[], None]:
    """One update of a model of its own."""
    objective = Objective(load_model(shipped_model()).train(), 0.1, precision)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-6, fused=True)

    def update() -> None:
        objective(*tensors).backward()
        optimizer.step()
        optimizer.zero_grad()

    return update


def convolutions(precision: str, rows: int) -> dict[str, Callable[[], None]]:
    """Forward and gradient of both ways, checked to be the same."""
    branch = ConvolutionBranch(WIDTH, KERNEL, HEADS, "lightweight", glu=False, causal=True)
    assert branch.taps is not None
    padded = torch.randn(rows, FRAMES + KERNEL - 1, WIDTH)

    def depthwise(x: Tensor) -> Tensor:
        assert branch.taps is not None
        taps = branch.taps.softmax(-1).repeat_interleave(WIDTH // HEADS, dim=0)[:, None]
        return F.conv1d(x.transpose(1, 2), taps, groups=WIDTH).transpose(1, 2)

    torch.testing.assert_close(branch._lightweight(padded), depthwise(padded), atol=1e-5, rtol=0)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32

    def run(way: Callable[[Tensor], Tensor]) -> None:
        x = padded.to(kind).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            y = way(x)
        y.backward(torch.ones_like(y))

    return {"conv1d": partial(run, depthwise), "band": partial(run, branch._lightweight)}


def compare(title: str, sides: Mapping[str, Callable[[], None]], rounds: int) -> None:
    """Print each side's median and its ratio to the first."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 2):
        for name, side in sides.items():
            start = time.thread_time()
            side()
            if turn > 1:  # the first two warm up
                times[name].append((time.thread_time() - start) * 1e3)
    medians = {name: statistics.median(seen) for name, seen in times.items()}
    first = next(iter(medians.values()))
    print(title, *(f"{name} {ms:.1f} ms ({ms / first:.2f}x)" for name, ms in medians.items()), sep="  ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    tensors = batch(arguments.sentences)
    sizes = " and ".join(f"{side.shape[0]} x {side.shape[1]}" for side in tensors[::2])
    compare(f"an update, {sizes} tokens:", {p: updates(p, tensors) for p in ("no", "bf16")}, arguments.rounds)
    for precision in ("no", "bf16"):
        title = f"{KERNEL} taps, {arguments.sentences} x {FRAMES} frames of {WIDTH}, precision {precision}:"
        compare(title, convolutions(precision, arguments.sentences), arguments.rounds)


if __name__ == "__main__":
    main()
