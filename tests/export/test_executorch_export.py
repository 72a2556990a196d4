"""The ``.pte``: every tensor equal to PyTorch's, sizes, delegation, and errors that name the way out."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from lite_export.errors import ExportError
from lite_export.executorch_delegation import delegation
from lite_export.executorch_export import export_executorch, facts
from lite_export.torch_session import TorchSession
from lite_runtime.bundle import BundleError, sha256_of
from lite_runtime.executorch_session import executorch_session
from lite_runtime.manifest import FileEntry, FormatEntry, TokenIds
from lite_runtime.recording import make_script, play
from lite_runtime.rows import RowSession
from lite_runtime.search import SearchOptions, search
from lite_transformer.config import ModelConfig, StackConfig
from lite_transformer.model import LiteTransformer

Precision = Literal["fp32", "int8", "int4"]
Cache = Literal["explicit", "stateful"]
VOCABULARY, MAX_SOURCE, MAX_TARGET = 12000, 12, 10
TOKENS = TokenIds(pad=1, eos=2, unk=3, start=2)


def config() -> ModelConfig:
    """Few layers, as lowering is slow; wide, so that weights outweigh the program as in a real model."""
    stack = StackConfig(kernels=(3,), attention_width=128, attention_heads=2, ffn_width=64, convolution_heads=2)
    return ModelConfig(
        width=256,
        source_vocab=VOCABULARY,
        target_vocab=VOCABULARY,
        encoder=stack,
        decoder=stack.model_copy(update={"kernels": (5, 3), "cross_heads": 4}),
        max_source=MAX_SOURCE,
        max_target=MAX_TARGET,
    )


@dataclass(frozen=True)
class Exported:
    """One file, as a bundle would list it, and the session over it."""

    folder: Path
    entry: FormatEntry
    session: RowSession

    @property
    def path(self) -> Path:
        return self.folder / self.entry.step.file


Make = Callable[[Precision, Cache], Exported]


@pytest.fixture(scope="module")
def model() -> LiteTransformer:
    torch.manual_seed(0)
    model = LiteTransformer(config())
    with torch.no_grad():
        # Lively enough that outputs do not echo inputs.
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.03)
    return model.eval()


@pytest.fixture(scope="module")
def make(model: LiteTransformer, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Exports each variant once."""
    made: dict[tuple[Precision, Cache], Exported] = {}

    def export(precision: Precision, cache: Cache) -> Exported:
        if (precision, cache) not in made:
            folder = tmp_path_factory.mktemp("executorch")
            path = folder / f"{precision}-{cache}.pte"
            encode, step, state = export_executorch(model, path, precision, cache)
            file = FileEntry(path=path.name, sha256=sha256_of(path), bytes=path.stat().st_size)
            entry = FormatEntry(
                format="executorch",
                precision=precision,
                cache=cache,
                files=(file,),
                encode=encode,
                step=step,
                state=state,
            )
            made[precision, cache] = Exported(folder, entry, executorch_session(folder, entry, threads=1))
        return made[precision, cache]

    return export


def sentences(lengths: Sequence[int], steps: int, seed: int = 0) -> Any:
    """A padded batch, and tokens to feed."""
    rng = np.random.default_rng(seed)
    sources = [rng.integers(4, VOCABULARY, n).tolist() for n in lengths]
    return make_script(sources, [rng.integers(4, VOCABULARY, steps).tolist() for _ in lengths], start=2, pad=1)


def differences(model: LiteTransformer, session: RowSession, script: Any) -> Iterator[tuple[str, float]]:
    """Every tensor of every step: its name, and how far it is from PyTorch's."""
    reference = TorchSession(copy.deepcopy(model))
    for wanted, found in zip(play(reference, script), play(session, script), strict=True):
        expected, actual = dict(wanted.state), session.canonical(found.state)
        assert set(actual) == {spec.name for spec in session.specs if not spec.held}
        expected |= reference.layers
        actual |= session.layers
        if wanted.logits is not None:
            assert found.logits is not None
            expected["logits"], actual["logits"] = wanted.logits, found.logits
        for name, tensor in actual.items():
            assert tensor.shape == expected[name].shape, (wanted.step, name)
            yield f"{wanted.step} {name}", float(np.abs(tensor - expected[name]).max())


@pytest.mark.parametrize("cache", ["explicit", "stateful"])
@pytest.mark.parametrize("lengths", [[1], [MAX_SOURCE], [3, MAX_SOURCE, 1]], ids=str)
def test_every_tensor_equals_pytorch(model: LiteTransformer, make: Make, cache: Cache, lengths: list[int]) -> None:
    """One word, the longest source, a padded batch; each up to the longest target. One session for all of them."""
    found = dict(differences(model, make("fp32", cache).session, sentences(lengths, MAX_TARGET)))
    layers = {"encoder_layer.0", "decoder_layer.0", "decoder_layer.1", "logits", "cross_mask"}
    assert layers <= {name.partition(" ")[2] for name in found}
    assert max(found.values()) < 1e-4, max(found.items(), key=lambda item: item[1])


@pytest.mark.parametrize("cache", ["explicit", "stateful"])
def test_a_sentence_leaves_nothing_to_the_next(model: LiteTransformer, make: Make, cache: Cache) -> None:
    session = make("fp32", cache).session
    long, short = sentences([MAX_SOURCE], MAX_TARGET, seed=1), sentences([2], 4, seed=2)
    for script in (long, short, long):
        assert max(d for _, d in differences(model, session, script)) < 1e-4


def test_a_program_that_keeps_its_state_serves_the_next_row(make: Make) -> None:
    program = make("fp32", "stateful").session.program
    first, second = program.hold(), program.hold()
    assert first.method is not second.method
    method = first.method
    del first
    assert program.hold().method is method


def test_beam_search_finds_what_it_finds_in_pytorch(model: LiteTransformer, make: Make) -> None:
    sources = [(7, 30, 2), (2,), (5, 9, 40, 41, 77, 100, 8, 2)]
    options = SearchOptions(beam=4, nbest=4, max_length=MAX_TARGET - 1)
    session = make("fp32", "explicit").session
    ours, theirs = (search(s, sources, TOKENS, options) for s in (session, TorchSession(copy.deepcopy(model))))
    for found, expected in zip(ours, theirs, strict=True):
        assert [h.tokens for h in found] == [h.tokens for h in expected]
        np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], atol=1e-4)


def test_a_beam_needs_the_explicit_cache(make: Make) -> None:
    with pytest.raises(BundleError, match="use the explicit cache"):
        search(make("fp32", "stateful").session, [(7, 30, 2)], TOKENS, SearchOptions(beam=4, max_length=5))


# Measured 0.03 and 0.09; a wrong scale or a swapped nibble is off by more than the logits themselves.
@pytest.mark.parametrize(("precision", "bound"), [("int8", 0.1), ("int4", 0.3)])
def test_fewer_bits_stay_near(model: LiteTransformer, make: Make, precision: Precision, bound: float) -> None:
    script = sentences([3, MAX_SOURCE, 1], MAX_TARGET)
    found = dict(differences(model, make(precision, "explicit").session, script))
    spread = np.std([m.logits for m in play(TorchSession(copy.deepcopy(model)), script) if m.logits is not None])
    worst = max(d for name, d in found.items() if name.endswith("logits"))
    assert 1e-3 < worst / spread < bound


def test_the_caller_keeps_its_weights(model: LiteTransformer, make: Make) -> None:
    make("int8", "explicit")
    assert all(type(p) is nn.Parameter and p.dtype == torch.float32 for p in model.parameters())
    assert model.decoder.projection.weight is model.decoder.embedding.weight


def weight_bytes(model: LiteTransformer, precision: Precision) -> int:
    """What a model needs at least: each weight once, with the scales of those in fewer bits."""
    total = 0
    seen = set()
    linears = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    table = id(model.decoder.embedding.weight)
    for tensor in [*model.parameters(), *model.buffers()]:
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        if precision == "fp32" or id(tensor) not in linears:
            total += 4 * tensor.numel()
        elif precision == "int8" or id(tensor) == table:
            total += tensor.numel() + 4 * len(tensor)
        else:
            # Groups of 32 share a scale of two bytes.
            total += tensor.numel() // 2 + tensor.numel() // 32 * 2
    return total


@pytest.mark.parametrize(
    ("precision", "cache"), [("fp32", "explicit"), ("fp32", "stateful"), ("int8", "explicit"), ("int4", "explicit")]
)
def test_every_weight_is_stored_once(model: LiteTransformer, make: Make, precision: Precision, cache: Cache) -> None:
    exported = make(precision, cache)
    needed = weight_bytes(model, precision)
    assert needed <= exported.path.stat().st_size <= 1.02 * needed


def test_the_table_is_one_run_of_bytes(model: LiteTransformer, make: Make) -> None:
    """What embeds the source, embeds the target and projects to the vocabulary."""
    content = make("fp32", "explicit").path.read_bytes()
    table = model.decoder.embedding.weight.detach().numpy().tobytes()
    assert content.count(table[:4096]) == content.count(table) == 1


@pytest.mark.parametrize(
    ("precision", "cache", "outside"),
    [
        ("fp32", "explicit", {"aten::embedding.out"}),
        ("fp32", "stateful", {"aten::embedding.out", "aten::copy_"}),
        ("int8", "explicit", {"quantized_decomposed::embedding_byte.out"}),
        ("int4", "explicit", {"quantized_decomposed::embedding_byte.out"}),
    ],
)
def test_a_step_is_one_call_of_the_delegate(make: Make, precision: Precision, cache: Cache, outside: set[str]) -> None:
    encode, step = sorted(delegation(make(precision, cache).path), key=lambda d: d.method)
    assert (encode.method, encode.delegated, step.method, step.delegated) == ("encode", 1, "step", 1)
    # The position as a number, and its row of the table of positions.
    places = {"aten::add.out", "aten::index_select.out", "dim_order_ops::_to_dim_order_copy.out"}
    assert set(step.outside) == places | outside
    assert step.outside.get("aten::copy_", 0) == (6 if cache == "stateful" else 0)
    assert "native_layer_norm" not in str(encode)


def test_the_file_tells_its_limits(make: Make) -> None:
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(make("fp32", "explicit").path)
    told = {name: program.load_method(name).execute([])[0] for name in facts(config())}
    assert told == facts(config())
    assert (told["max_source"], told["start"], told["decoder_layers"]) == (MAX_SOURCE, 2, 2)
    assert program.method_names == {"encode", "step", *told}


def test_a_sentence_beyond_the_limits_is_refused(make: Make) -> None:
    session = make("fp32", "explicit").session
    source = np.full((1, MAX_SOURCE + 1), 5)
    with pytest.raises(BundleError, match=r"encode of fp32-explicit\.pte .* longer than the bundle's limits"):
        session.encode(source, source != 1)


def test_loading_and_running_say_nothing(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    exported = make("int8", "explicit")
    capfd.readouterr()
    session = executorch_session(exported.folder, exported.entry, threads=1)
    source = np.array([[5, 6, 2]])
    session.step(np.array([2]), 0, session.encode(source, source != 1))
    assert capfd.readouterr() == ("", "")


def damaged(exported: Exported, folder: Path, content: bytes, listed: bool) -> FormatEntry:
    """An entry whose file has other bytes, with or without a checksum to tell."""
    (folder / exported.path.name).write_bytes(content)
    return exported.entry if listed else exported.entry.model_copy(update={"files": ()})


@pytest.mark.parametrize("content", [b"", b"not a program" * 100, 0.001, 0.5, 0.999], ids=str)
def test_a_file_that_cannot_be_loaded_is_named(make: Make, tmp_path: Path, content: bytes | float) -> None:
    exported = make("fp32", "explicit")
    whole = exported.path.read_bytes()
    entry = damaged(
        exported, tmp_path, content if isinstance(content, bytes) else whole[: int(content * len(whole))], False
    )
    with pytest.raises(BundleError, match=r"ExecuTorch cannot load fp32-explicit\.pte: .+; copy the bundle again"):
        executorch_session(tmp_path, entry)


def test_a_flipped_bit_is_found_before_native_code_reads_it(make: Make, tmp_path: Path) -> None:
    exported = make("fp32", "explicit")
    content = bytearray(exported.path.read_bytes())
    content[-1000] ^= 1
    entry = damaged(exported, tmp_path, bytes(content), listed=True)
    with pytest.raises(BundleError, match="is damaged"):
        executorch_session(tmp_path, entry)
    (tmp_path / exported.path.name).unlink()
    with pytest.raises(BundleError, match="is missing"):
        executorch_session(tmp_path, entry)


@pytest.mark.parametrize("package", ["torch", "executorch.extension.pybindings"])
def test_a_missing_package_is_named_when_a_file_is_run(
    make: Make, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    exported = make("fp32", "explicit")
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "executorch.extension.pybindings.portable_lib", raising=False)
    with pytest.raises(BundleError, match=r"pip install 'lite-export\[executorch\]'"):
        executorch_session(exported.folder, exported.entry)


@pytest.mark.parametrize("package", ["executorch.exir", "torchao"])
def test_a_missing_package_is_named_when_a_file_is_made(
    model: LiteTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=r"pip install 'lite-export\[executorch\]'"):
        export_executorch(model, tmp_path / "x.pte", "fp32", "explicit")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused(model: LiteTransformer, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no fp16 for ExecuTorch; choose from fp32, int8, int4"):
        export_executorch(model, tmp_path / "x.pte", "fp16", "explicit")  # type: ignore[arg-type]
    decoder = config().decoder.model_copy(update={"cross_heads": 0})
    alone = LiteTransformer(ModelConfig(**{**config().model_dump(), "encoder": None, "decoder": decoder.model_dump()}))
    with pytest.raises(ExportError, match="no encoder"):
        export_executorch(alone, tmp_path / "x.pte", "fp32", "explicit")
