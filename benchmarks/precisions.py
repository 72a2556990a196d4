"""What the export form and each precision buy, in ONNX Runtime and ExecuTorch, against the modules as they train.

    python benchmarks/precisions.py [MODEL_FOLDER | --preset wmt-en-fr-496] [--tokens 60] [--rounds 11]

Printed too: what of the ExecuTorch programs XNNPACK runs, and what is left to the interpreter. The naive side is the
reference's own decoder in ONNX Runtime, traced with its caches as inputs and outputs: activations (B, 1, C), query,
key and value apart, fp32. The source is as long as the translation. All sides decode the same tokens, interleaved, in
one process on one thread. A round's figure is its median step, which a moment taken away by another process does not
spoil; shown are medians over rounds, and of the ratios round by round. The
smaller the model, and the more of its fp32 weights the processor's cache holds, the less a precision can win.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
import torch
from cached_decode import decode_cached, repeat
from torch import Tensor, nn
from torch.export import Dim

from lite_export import executorch_export
from lite_export.executorch_delegation import delegation
from lite_export.graphs import state_specs
from lite_export.loading import shipped_model
from lite_export.onnx_export import export_graph, export_onnx, step_axes, step_shape
from lite_export.onnx_quantize import PRECISIONS
from lite_export.torch_session import TorchSession
from lite_runtime.executorch_session import executorch_session
from lite_runtime.manifest import FormatEntry, Graph
from lite_runtime.onnx_session import OnnxSession
from lite_runtime.session import Session
from lite_transformer.checkpoint import load_model
from lite_transformer.model import LiteTransformer
from lite_transformer.presets import PRESETS


class NaiveStep(nn.Module):
    """``(tokens (B), position (1), *state) -> (logits (B, V), *new state)`` by the layers that train."""

    def __init__(self, model: LiteTransformer) -> None:
        super().__init__()
        self.decoder = model.decoder
        self.unflatten = TorchSession(model)._decoder_state

    def forward(self, tokens: Tensor, position: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        logits, after = self.decoder(tokens[:, None], position, self.unflatten(list(state)))
        return logits[:, 0], *(t for mixer in after.mixers for t in mixer if t is not None)


def export_naive(model: LiteTransformer, path: Path) -> Graph:
    """The naive step as a file; batch, source and past dynamic."""
    specs = state_specs(model.config)
    sizes = {"batch": 2, "source": 7, "past": 5}
    dims = {name: Dim(name, min=0 if name == "past" else 1, max=200) for name in sizes}
    state = [torch.zeros([sizes.get(d, d) for d in step_shape(spec)]) for spec in specs]
    axes = tuple({axis: dims[name] for axis, name in step_axes(spec).items()} for spec in specs)
    exported = export_graph(
        NaiveStep(model),
        (torch.full((2,), 5), torch.tensor([5]), *state),
        ["tokens", "position", *(s.name for s in specs)],
        ["logits", *(s.output for s in specs if s.output)],
        {"tokens": {0: dims["batch"]}, "position": None, "state": axes},
    )
    ir.save(exported, path)
    return Graph(file=path.name, inputs=(), outputs=())


def export_sides(model: LiteTransformer, folder: Path) -> dict[str, tuple[Session, Path]]:
    """Every side, loaded on one thread, and the folder or file its weights are in; the naive export first."""
    specs = state_specs(model.config)
    entries = {
        precision: FormatEntry(format="onnx", precision=precision, files=(), encode=encode, step=step, state=specs)
        for precision, (encode, step) in export_onnx(model, folder, PRECISIONS).items()
    }
    naive = folder / "naive.onnx"
    entry = entries["fp32"].model_copy(update={"step": export_naive(model, naive)})
    sides: dict[str, tuple[Session, Path]] = {"naive": (OnnxSession(folder, entry, threads=1), naive)}
    for precision, entry in entries.items():
        sides[f"onnx {precision}"] = OnnxSession(folder, entry, threads=1), folder / precision
    return sides | export_executorch_sides(model, folder)


def export_executorch_sides(model: LiteTransformer, folder: Path) -> dict[str, tuple[Session, Path]]:
    """ExecuTorch in every precision, with explicit caches."""
    paths = {precision: folder / f"{precision}.pte" for precision in executorch_export.PRECISIONS}
    sides: dict[str, tuple[Session, Path]] = {}
    for precision, (encode, step, specs) in executorch_export.export_executorch(model, paths, "explicit").items():
        entry = FormatEntry(format="executorch", precision=precision, files=(), encode=encode, step=step, state=specs)
        sides[f"executorch {precision}"] = executorch_session(folder, entry, threads=1), paths[precision]
    return sides


def check_naive(naive: Session, fp32: Session, source: np.ndarray, tokens: np.ndarray) -> None:
    """Both must compute the same, or the race is void."""
    state, other = (s.encode(source, source > 0) for s in (naive, fp32))
    for position, token in enumerate(tokens):
        logits, state = naive.step(token[None], position, state)
        wanted, other = fp32.step(token[None], position, other)
        np.testing.assert_allclose(logits, wanted, atol=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=None, help="model folder; default: the shipped model")
    parser.add_argument("--preset", choices=list(PRESETS), help="a paper's or our own preset, with random weights")
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    torch.set_num_threads(1)
    chosen = LiteTransformer(PRESETS[args.preset].config) if args.preset else load_model(args.model or shipped_model())
    model = chosen.eval()
    tokens = np.random.default_rng(0).integers(4, model.config.target_vocab, args.tokens)
    source = tokens[None]
    with TemporaryDirectory() as temporary, torch.inference_mode():
        folder = Path(temporary)
        sides = export_sides(model, folder)
        check_naive(sides["naive"][0], sides["onnx fp32"][0], source, tokens)
        runs = repeat(
            args.rounds, *(lambda s=s: statistics.median(decode_cached(s, source, tokens)) for s, _ in sides.values())
        )
        sizes = [sum(f.stat().st_size for f in (p.iterdir() if p.is_dir() else [p])) for _, p in sides.values()]
        delegated = {name: delegation(path) for name, (_, path) in sides.items() if path.suffix == ".pte"}
    print(f"{args.tokens} cached steps, 1 thread, median of {args.rounds} interleaved rounds")
    of_onnx = dict(zip(sides, runs, strict=True))["onnx int8"]
    for name, times, size in zip(sides, runs, sizes, strict=True):
        print(
            f"  {name:<15} {statistics.median(times):6.3f} ms a token   {ratio(times, runs[0]):5.2f}x the naive  "
            f" {ratio(times, of_onnx):5.2f}x onnx int8   {size / 1e6:6.2f} MB"
            f" ({'step only' if name == 'naive' else 'encode and step'})"
        )
    for name, methods in delegated.items():
        print(f"  {name}: " + "; ".join(map(str, methods)))


def ratio(times: list[float], base: list[float]) -> float:
    """Median over rounds."""
    return statistics.median(own / other for own, other in zip(times, base, strict=True))


if __name__ == "__main__":
    main()
