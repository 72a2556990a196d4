"""The bundle's contract: one JSON that Python, Kotlin, Swift and C++ read alike.

``lite-export schema`` prints its JSON Schema (docs/manifest.schema.json).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 2
StateKind = Literal["self_kv", "cross_kv", "cross_mask", "conv_window", "memory"]


class Part(BaseModel):
    """Base of the manifest's parts: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(Part):
    """A file of the bundle; the path is relative to the manifest."""

    path: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class TensorSpec(Part):
    """A graph input or output. A named dimension is dynamic; equal names are equal sizes."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Graph(Part):
    """One callable of a format: ``encode`` or ``step``.

    ``function`` is its name where one file (or, for Core ML, one package folder) holds several. ``layers`` name what
    each layer gave, in order: the last outputs, for parity only; an app ignores them. Core ML spells an output's name
    without dots.
    """

    file: str
    function: str | None = None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: tuple[str, ...] = ()


class StateTensor(Part):
    """One tensor a decode carries from step to step.

    ``output`` is the step graph's output that replaces it; None where a sentence never changes it
    (cross-attention). ``initial`` fills it before the first token where the encoder does not produce it.
    ``shape`` is the shape before the first token. ``batch_axis`` is None where the graphs take one row at a time;
    ``slots`` is the fixed length of the time axis (the last but one) where only the slots up to the position count;
    ``held`` where the runtime keeps the tensor itself (mutable buffer, Core ML state), out of inputs and outputs.
    """

    name: str
    kind: StateKind
    layer: int | None
    dtype: str = "float32"
    shape: tuple[int | str, ...]
    output: str | None
    initial: float | None
    batch_axis: int | None = 0
    slots: int | None = None
    held: bool = False


class FormatEntry(Part):
    """One exported form of the model: its format, precision, files, graphs and state.

    ``extras`` are further callables some formats offer, by name: a whole translation as one graph, for example.
    ``notes`` are the exporter's words to people: what of an ExecuTorch method its delegate runs.
    """

    format: Literal["onnx", "coreml", "executorch"]
    precision: str
    cache: Literal["explicit", "stateful"] = "explicit"
    files: tuple[FileEntry, ...]
    encode: Graph
    step: Graph
    state: tuple[StateTensor, ...]
    extras: dict[str, Graph] = {}
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people: format, precision, and the kind of cache where it is not explicit."""
        return f"{self.format} {self.precision}" + ("" if self.cache == "explicit" else f" {self.cache}")


class TokenIds(Part):
    """Special ids. ``start`` is what the decoder reads first."""

    pad: int
    eos: int
    unk: int
    start: int


class Limits(Part):
    """Most tokens the graphs accept, end-of-sentence included."""

    max_source: int
    max_target: int


class Decoding(Part):
    """Defaults of the search. The longest output is ``max_length_ratio * source tokens + max_length_extra``."""

    beam: int = Field(default=4, ge=1)
    length_penalty: float = 1.0
    max_length_ratio: float = 2.0
    max_length_extra: int = 10
    no_repeat_ngram: int = Field(default=0, ge=0)

    def longest(self, source_tokens: int, limits: Limits) -> int:
        """Most target tokens before eos for a source of that many tokens (eos included)."""
        wanted = int(self.max_length_ratio * source_tokens) + self.max_length_extra
        return min(wanted, limits.max_target - 1)


class Text(Part):
    """How text becomes tokens. ``replacements`` are applied, in order, before the tokenizer sees a sentence."""

    tokenizer: str = "tokenizer.model"
    replacements: dict[str, str] = {}


class Card(Part):
    """What the model is, for people and for release gates."""

    model_id: str
    task: str = "translation"
    source_language: str
    target_language: str
    licence: str
    training_data: tuple[str, ...]
    scores: dict[str, float] = {}
    parameters: int


class Golden(Part):
    """The reference that travels with the bundle, recorded by PyTorch at export.

    ``sentences`` is a JSON list of lite_runtime.golden.GoldenSentence; ``steps`` a safetensors file of one
    padded batch decoded step by step (lite_runtime.recording).
    """

    sentences: str
    steps: str


class Manifest(Part):
    """The whole bundle. ``weights_sha256`` is the checkpoint's it was exported from."""

    schema_version: int
    producer: str
    card: Card
    vocabulary: int
    tokens: TokenIds
    limits: Limits
    decoding: Decoding
    text: Text
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    golden: Golden
    files: tuple[FileEntry, ...]
    formats: tuple[FormatEntry, ...]
