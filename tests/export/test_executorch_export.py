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
from lite_export.executorch_export import PRECISIONS, check_axes, export_executorch, facts
from lite_export.torch_session import TorchSession
from lite_export.xnnpack_weights import GROUP, eight_bit, four_bit
from lite_runtime.bundle import BundleError, sha256_of
from lite_runtime.executorch_session import executorch_session
from lite_runtime.manifest import FileEntry, FormatEntry, Graph, StateTensor, TokenIds
from lite_runtime.quiet_executorch import quiet
from lite_runtime.recording import make_script, play
from lite_runtime.rows import RowSession
from lite_runtime.search import SearchOptions, search
from lite_transformer.config import ModelConfig, StackConfig
from lite_transformer.model import LiteTransformer
from tiny_models import lively_model, tiny_config

Cache = Literal["explicit", "stateful"]
VOCABULARY, MAX_SOURCE, MAX_TARGET = 12000, 12, 10
TOKENS = TokenIds(pad=1, eos=2, unk=3, start=2)


def config(convolution: Literal["lightweight", "dynamic"] = "lightweight") -> ModelConfig:
    """Few layers, as lowering is slow; wide, so that weights outweigh the program as in a real model."""
    stack = StackConfig(
        kernels=(3,),
        attention_width=128,
        attention_heads=2,
        ffn_width=64,
        convolution=convolution,
        convolution_heads=2,
    )
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
    """One file, as a bundle would list it, the session over it, and the model it was made from."""

    model: LiteTransformer
    folder: Path
    entry: FormatEntry
    session: RowSession

    @property
    def path(self) -> Path:
        return self.folder / self.entry.step.file


Make = Callable[[str, Cache], Exported]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Lowers each kind of cache once, for all its precisions: each with another kind of convolution."""
    kinds: dict[Cache, Literal["lightweight", "dynamic"]] = {"explicit": "lightweight", "stateful": "dynamic"}
    made: dict[tuple[str, Cache], Exported] = {}

    def export(precision: str, cache: Cache) -> Exported:
        if (precision, cache) not in made:
            folder, model = tmp_path_factory.mktemp(cache), lively_model(config(kinds[cache]), noise=0.03)
            paths = {each: folder / f"{each}-{cache}.pte" for each in PRECISIONS}
            for each, graphs in export_executorch(model, paths, cache).items():
                entry = listed(paths[each], each, cache, *graphs)
                made[each, cache] = Exported(model, folder, entry, executorch_session(folder, entry, threads=1))
        return made[precision, cache]

    return export


def listed(
    path: Path, precision: str, cache: Cache, encode: Graph, step: Graph, state: tuple[StateTensor, ...]
) -> FormatEntry:
    """As a bundle's manifest would have it."""
    file = FileEntry(path=path.name, sha256=sha256_of(path), bytes=path.stat().st_size)
    return FormatEntry(
        format="executorch", precision=precision, cache=cache, files=(file,), encode=encode, step=step, state=state
    )


def sentences(lengths: Sequence[int], steps: int, seed: int = 0) -> Any:
    """A padded batch, and tokens to feed."""
    rng = np.random.default_rng(seed)
    sources = [rng.integers(4, VOCABULARY, n).tolist() for n in lengths]
    return make_script(sources, [rng.integers(4, VOCABULARY, steps).tolist() for _ in lengths], start=2, pad=1)


def differences(model: LiteTransformer, session: RowSession, script: Any) -> Iterator[tuple[str, float]]:
    """Every tensor of every step: its name, and how far it is from PyTorch's."""
    reference = TorchSession(copy.deepcopy(model))
    for wanted, found in zip(play(reference, script), play(session, script), strict=True):
        expected, actual = dict(wanted.state), dict(found.state)
        assert set(actual) == {spec.name for spec in session.specs if not spec.held}
        expected |= wanted.layers
        actual |= found.layers
        if wanted.logits is not None:
            assert found.logits is not None
            expected["logits"], actual["logits"] = wanted.logits, found.logits
        for name, tensor in actual.items():
            assert tensor.shape == expected[name].shape, (wanted.step, name)
            yield f"{wanted.step} {name}", float(np.abs(tensor - expected[name]).max(initial=0.0))


@pytest.mark.parametrize("cache", ["explicit", "stateful"])
@pytest.mark.parametrize("lengths", [[1], [MAX_SOURCE], [3, MAX_SOURCE, 1]], ids=str)
def test_every_tensor_equals_pytorch(make: Make, cache: Cache, lengths: list[int]) -> None:
    """One word, the longest source, a padded batch; each up to the longest target. One session for all of them."""
    exported = make("fp32", cache)
    found = dict(differences(exported.model, exported.session, sentences(lengths, MAX_TARGET)))
    layers = {"encoder_layer.0", "decoder_layer.0", "decoder_layer.1", "logits", "cross_mask"}
    assert layers <= {name.partition(" ")[2] for name in found}
    assert max(found.values()) < 1e-4, max(found.items(), key=lambda item: item[1])


@pytest.mark.parametrize("cache", ["explicit", "stateful"])
def test_a_sentence_leaves_nothing_to_the_next(make: Make, cache: Cache) -> None:
    exported = make("fp32", cache)
    long, short = sentences([MAX_SOURCE], MAX_TARGET, seed=1), sentences([2], 4, seed=2)
    for script in (long, short, long):
        assert max(d for _, d in differences(exported.model, exported.session, script)) < 1e-4


def test_a_program_that_keeps_its_state_serves_the_next_row(make: Make) -> None:
    program = make("fp32", "stateful").session.program
    first, second = program.hold(), program.hold()
    assert first.method is not second.method
    method = first.method
    del first
    assert program.hold().method is method


def test_beam_search_finds_what_it_finds_in_pytorch(make: Make) -> None:
    sources = [(7, 30, 2), (2,), (5, 9, 40, 41, 77, 100, 8, 2)]
    options = SearchOptions(beam=4, nbest=4, max_length=MAX_TARGET - 1)
    exported = make("fp32", "explicit")
    sessions = exported.session, TorchSession(copy.deepcopy(exported.model))
    ours, theirs = (search(session, sources, TOKENS, options) for session in sessions)
    for found, expected in zip(ours, theirs, strict=True):
        assert [h.tokens for h in found] == [h.tokens for h in expected]
        np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], atol=1e-4)


def test_a_beam_needs_the_explicit_cache(make: Make) -> None:
    with pytest.raises(BundleError, match="use the explicit cache"):
        search(make("fp32", "stateful").session, [(7, 30, 2)], TOKENS, SearchOptions(beam=4, max_length=5))


@pytest.mark.parametrize("cache", ["explicit", "stateful"])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_fewer_bits_are_those_of_rounded_weights(make: Make, precision: str, cache: Cache) -> None:
    """Against PyTorch with the same rounded weights only the activations' 8 bits differ: measured 3 % of the spread.

    A wrong scale, or pairs of 4-bit numbers swapped, is off by more than the logits themselves.
    """
    exported = make(precision, cache)
    script = sentences([3, MAX_SOURCE, 1], MAX_TARGET)
    rounded = copy.deepcopy(exported.model)
    with torch.no_grad():
        for linear in [m for m in rounded.modules() if isinstance(m, nn.Linear)]:
            four = precision == "int4" and linear is not rounded.decoder.projection
            linear.weight.copy_(torch.from_numpy(as_stored(linear.weight.numpy(), four)))
    found = {n: d for n, d in differences(rounded, exported.session, script) if n.endswith("logits")}
    logits = [m.logits for m in play(TorchSession(copy.deepcopy(exported.model)), script) if m.logits is not None]
    assert max(found.values()) < 0.1 * np.std(logits), max(found.values()) / np.std(logits)
    exact = dict(differences(exported.model, exported.session, script))
    assert max(d for n, d in exact.items() if n.endswith("logits")) > 1e-3 * np.std(logits)


def as_stored(matrix: np.ndarray, four: bool) -> np.ndarray:
    """What the bytes of a quantized matrix stand for."""
    if not four:
        weight = eight_bit(matrix)
        return (
            np.frombuffer(weight.numbers, np.int8).reshape(matrix.shape)
            * np.frombuffer(weight.scales, np.float32)[:, None]
        )
    weight = four_bit(matrix)
    pairs = np.frombuffer(weight.numbers, np.uint8).reshape(len(matrix), -1)
    numbers = np.stack([pairs & 15, pairs >> 4], axis=-1).astype(np.float32) - 8
    scales = (np.frombuffer(weight.scales, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return (numbers.reshape(len(matrix), -1, GROUP) * scales.reshape(len(matrix), -1, 1)).reshape(matrix.shape)


def test_the_caller_keeps_its_weights(make: Make) -> None:
    model = make("int8", "explicit").model
    assert all(type(p) is nn.Parameter and p.dtype == torch.float32 for p in model.parameters())
    assert model.decoder.projection.weight is model.decoder.embedding.weight


def weight_bytes(model: LiteTransformer, precision: str) -> int:
    """What a model needs at least: each weight once, with the scales of those in fewer bits."""
    total = 0
    seen: set[bytes] = set()
    linears = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    table = id(model.decoder.embedding.weight)
    for tensor in [*model.parameters(), *model.buffers()]:
        content = tensor.detach().numpy().tobytes()
        if content in seen:
            continue
        seen.add(content)
        if precision == "fp32" or id(tensor) not in linears:
            total += 4 * tensor.numel()
        elif precision == "int8" or id(tensor) == table:
            total += tensor.numel() + 4 * len(tensor)
        else:
            # Groups of 32 share a scale of two bytes.
            total += tensor.numel() // 2 + tensor.numel() // 32 * 2
    return total


@pytest.mark.parametrize("cache", ["explicit", "stateful"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_weight_is_stored_once(make: Make, precision: str, cache: Cache) -> None:
    """What is not weights describes the program: its size depends on the number of layers, not on their width."""
    from lite_export.executorch_file import ProgramFile

    exported = make(precision, cache)
    file, needed = ProgramFile.read(exported.path.read_bytes()), weight_bytes(exported.model, precision)
    stored = sum(map(len, {*file.constants.values(), *file.weights.values()}))
    assert needed <= stored <= 1.01 * needed
    assert stored < exported.path.stat().st_size < stored + 100_000


def test_the_table_is_one_run_of_bytes(make: Make) -> None:
    """What embeds the source, embeds the target and projects to the vocabulary."""
    exported = make("fp32", "explicit")
    content = exported.path.read_bytes()
    table = exported.model.decoder.embedding.weight.detach().numpy().tobytes()
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
def test_a_step_is_one_call_of_the_delegate(make: Make, precision: str, cache: Cache, outside: set[str]) -> None:
    encode, step = sorted(delegation(make(precision, cache).path), key=lambda d: d.method)
    # Dynamic convolution unfolds the encoder's frames, which XNNPACK cannot.
    assert (encode.method, encode.calls) == ("encode", 1 if cache == "explicit" else 3)
    assert (step.method, step.calls) == ("step", 1)
    # The position as a number, and its row of the table of positions.
    places = {"aten::add.out", "aten::index_select.out", "dim_order_ops::_to_dim_order_copy.out"}
    assert set(step.outside) == places | outside
    assert step.outside.get("aten::copy_", 0) == (6 if cache == "stateful" else 0)
    assert "native_layer_norm" not in str(encode)
    assert step.inside > 20 * sum(step.outside.values()) - 20 * step.outside.get("aten::copy_", 0)
    assert str(step).startswith(f"step: {step.inside} of {step.inside + sum(step.outside.values())} operations")


def test_the_file_tells_its_limits(make: Make) -> None:
    with quiet():
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


def test_a_missing_package_is_named_when_a_file_is_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = make("fp32", "explicit")
    monkeypatch.setitem(sys.modules, "executorch.extension.pybindings", None)
    with pytest.raises(BundleError, match=r"pip install 'lite-export\[executorch\]'"):
        executorch_session(exported.folder, exported.entry)


@pytest.mark.parametrize("package", ["executorch.exir", "executorch.backends.xnnpack.partition.xnnpack_partitioner"])
def test_a_missing_package_is_named_when_a_file_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=r"pip install 'lite-export\[executorch\]'"):
        export_executorch(LiteTransformer(tiny_config()), {"fp32": tmp_path / "x.pte"}, "explicit")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    model = LiteTransformer(tiny_config())
    with pytest.raises(ExportError, match="no fp16 for ExecuTorch; choose from fp32, int8, int4"):
        export_executorch(model, {"fp16": tmp_path / "x.pte"}, "explicit")
    decoder = config().decoder.model_copy(update={"cross_heads": 0})
    alone = LiteTransformer(ModelConfig(**{**config().model_dump(), "encoder": None, "decoder": decoder.model_dump()}))
    with pytest.raises(ExportError, match="no encoder"):
        export_executorch(alone, {"fp32": tmp_path / "x.pte"}, "explicit")


def test_a_frozen_length_is_found(make: Make) -> None:
    from executorch.exir.schema import TensorShapeDynamism

    from lite_export.executorch_file import ProgramFile

    file = ProgramFile.read(make("fp32", "explicit").path.read_bytes())
    check_axes(file)
    encode = next(plan for plan in file.program.execution_plan if plan.name == "encode")
    encode.values[encode.inputs[0]].val.shape_dynamism = TensorShapeDynamism.STATIC
    with pytest.raises(ExportError, match=f"frozen at {MAX_SOURCE}"):
        check_axes(file)
