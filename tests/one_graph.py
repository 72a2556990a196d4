"""A copy of the tiny bundle's ONNX folder, where one-graph files are made, and searches to compare them with."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lite_export.onnx_export import WEIGHTS, WeightPool
from lite_export.onnx_quantize import quantize
from lite_export.onnx_translate import add_translate
from lite_runtime.bundle import Bundle, open_bundle
from lite_runtime.golden import GoldenSentence, load_golden
from lite_runtime.manifest import Decoding, FormatEntry, Limits, TokenIds
from lite_runtime.onnx_session import OnnxSession
from lite_runtime.onnx_translate import Best, OneGraph
from lite_runtime.search import SearchOptions, search

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Exported:
    """Graphs in a folder of their own, and the bundle they came from."""

    folder: Path
    bundle: Bundle
    entry: FormatEntry

    @property
    def tokens(self) -> TokenIds:
        return self.bundle.manifest.tokens

    @property
    def limits(self) -> Limits:
        return self.bundle.manifest.limits

    @property
    def decoding(self) -> Decoding:
        return self.bundle.manifest.decoding

    @property
    def golden(self) -> tuple[GoldenSentence, ...]:
        return load_golden(self.bundle.folder / self.bundle.manifest.golden.sentences)

    def session(self, ending: str = "onnx") -> OnnxSession:
        update = {
            name: getattr(self.entry, name).model_copy(update={"file": f"{name}.{ending}"})
            for name in ("encode", "step")
        }
        return OnnxSession(self.folder, self.entry.model_copy(update=update), 1)

    def one_graph(self, beam: int, tokens: TokenIds | None = None, decoding: Decoding | None = None) -> OneGraph:
        tokens = tokens or self.tokens
        graph = add_translate(self.folder, self.entry.state, tokens, self.limits, decoding or self.decoding, beam)
        return OneGraph(self.folder / graph.file, tokens, self.limits, 1)

    def searched(
        self,
        sources: Sequence[Ids],
        longest: Sequence[int],
        beam: int,
        tokens: TokenIds | None = None,
        decoding: Decoding | None = None,
    ) -> list[Best]:
        """What ``lite_runtime.search`` finds with the step graph."""
        decoding = decoding or self.decoding
        options = SearchOptions(
            beam=beam,
            length_penalty=decoding.length_penalty,
            no_repeat_ngram=decoding.no_repeat_ngram,
            max_length=self.limits.max_target - 1,
        )
        found = search(self.session(), sources, tokens or self.tokens, options, max_lengths=longest)
        return [Best(best.tokens, best.score) for best, *_ in found]

    def usual_lengths(self, sources: Sequence[Ids]) -> list[int]:
        return [self.decoding.longest(len(source), self.limits) for source in sources]


def copy_of(bundle_folder: Path, target: Path) -> Exported:
    """The fp32 graphs of a bundle, in ``target``."""
    bundle = open_bundle(bundle_folder)
    entry = bundle.format("onnx", "fp32")
    shutil.copytree((bundle_folder / entry.encode.file).parent, target)
    return Exported(target, bundle, entry)


def untied(exported: Exported) -> Exported:
    """The same graphs, whose projection is the embedding with its rows moved on.

    A random tied model writes its last word for ever; this one goes from word to word.
    """
    model, weights = ir.load(exported.folder / "step.onnx"), exported.folder / WEIGHTS
    (projection,) = (node for node in model.graph if model.graph.outputs[0] in node.outputs)
    table = projection.inputs[1]
    assert table is not None and table.const_value is not None
    moved = np.roll(table.const_value.numpy(), 7, axis=0)
    offset = weights.stat().st_size
    weights.write_bytes(weights.read_bytes() + moved.tobytes())
    place = {"location": WEIGHTS, "offset": offset, "length": moved.nbytes, "base_dir": exported.folder}
    tensor = ir.ExternalTensor(**place, dtype=ir.DataType.FLOAT, shape=ir.Shape(moved.shape), name="moved")
    value = ir.Value(name="moved", type=table.type, shape=table.shape, const_value=tensor)
    model.graph.register_initializer(value)
    projection.replace_input_with(1, value)
    ir.save(model, exported.folder / "step.onnx")
    return exported


def quantized(exported: Exported, target: Path, precision: str) -> Exported:
    """The same graphs in another precision."""
    target.mkdir()
    with closing(WeightPool(target / WEIGHTS)) as pool:
        for name in ("encode", "step"):
            model = ir.load(exported.folder / f"{name}.onnx")
            quantize(model, precision)
            pool.adopt(model)
            ir.save(model, target / f"{name}.onnx")
    return Exported(target, exported.bundle, exported.entry)


def random_sources(rng: np.random.Generator, lengths: Sequence[int], tokens: TokenIds, vocabulary: int) -> list[Ids]:
    return [(*rng.integers(4, vocabulary, n - 1).tolist(), tokens.eos) for n in lengths]


def assert_same(found: Sequence[Best], wanted: Sequence[Best], tolerance: float = 2e-5) -> None:
    assert [best.tokens for best in found] == [best.tokens for best in wanted]
    np.testing.assert_allclose([b.score for b in found], [b.score for b in wanted], rtol=tolerance, atol=tolerance)
