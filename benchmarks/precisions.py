"""What the export form and each precision buy in ONNX Runtime, against the modules exported as they train.

    python benchmarks/precisions.py [MODEL_FOLDER] [--tokens 60] [--rounds 11]

The naive side is the reference's own decoder, traced with its caches as inputs and outputs: activations (B, 1, C),
query, key and value apart, fp32. The source is as long as the translation. All sides decode the same tokens,
interleaved, in one process on one thread. A round's figure is its median step, which a moment taken away by another
process does not spoil; shown are medians over rounds, and of the ratios round by round. Half of an int8 step is not
multiplication but some 90 small nodes: the smaller the model, and the more of its fp32 weights the cache holds, the
less a precision can win.
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

from lite_export.graphs import state_specs
from lite_export.loading import shipped_model
from lite_export.onnx_export import export_graph, export_onnx, step_axes, step_shape
from lite_export.onnx_quantize import PRECISIONS
from lite_export.torch_session import TorchSession
from lite_runtime.manifest import FormatEntry, Graph
from lite_runtime.onnx_session import OnnxSession
from lite_transformer.checkpoint import load_model
from lite_transformer.model import LiteTransformer


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


def export_sides(model: LiteTransformer, folder: Path) -> dict[str, OnnxSession]:
    """The naive export and every precision, loaded on one thread."""
    specs = state_specs(model.config)
    entries = {
        precision: FormatEntry(format="onnx", precision=precision, files=(), encode=encode, step=step, state=specs)
        for precision, (encode, step) in export_onnx(model, folder, PRECISIONS).items()
    }
    naive = entries["fp32"].model_copy(update={"step": export_naive(model, folder / "naive.onnx")})
    return {name: OnnxSession(folder, entry, threads=1) for name, entry in {"naive": naive, **entries}.items()}


def check_naive(naive: OnnxSession, fp32: OnnxSession, source: np.ndarray, tokens: np.ndarray) -> None:
    """Both must compute the same, or the race is void."""
    state, other = (s.encode(source, source > 0) for s in (naive, fp32))
    for position, token in enumerate(tokens):
        logits, state = naive.step(token[None], position, state)
        wanted, other = fp32.step(token[None], position, other)
        np.testing.assert_allclose(logits, wanted, atol=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=None, help="model folder; default: the shipped model")
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(args.model or shipped_model()).eval()
    tokens = np.random.default_rng(0).integers(4, model.config.target_vocab, args.tokens)
    source = tokens[None]
    with TemporaryDirectory() as temporary, torch.inference_mode():
        folder = Path(temporary)
        sides = export_sides(model, folder)
        check_naive(sides["naive"], sides["fp32"], source, tokens)
        runs = repeat(
            args.rounds, *(lambda s=s: statistics.median(decode_cached(s, source, tokens)) for s in sides.values())
        )
        sizes = {name: sum(f.stat().st_size for f in folder.glob(f"{name}*/*")) for name in sides}
        sizes["naive"] = (folder / "naive.onnx").stat().st_size
    print(f"{args.tokens} cached steps, ONNX Runtime, 1 thread, median of {args.rounds} interleaved rounds")
    for name, times in zip(sides, runs, strict=True):
        ratio = statistics.median(own / naive for own, naive in zip(times, runs[0], strict=True))
        step = statistics.median(times)
        about = "step only" if name == "naive" else "encode and step"
        print(f"  {name:<6} {step:6.3f} ms a token   {ratio:5.2f}x the naive   {sizes[name] / 1e6:6.2f} MB ({about})")


if __name__ == "__main__":
    main()
