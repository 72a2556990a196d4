"""What ``lite-export bench`` writes: every sample it took, and what may be said about them.

``lite-export schema bench`` prints its JSON Schema (docs/bench.schema.json). Times are milliseconds of a clock inside
the process on the device. One file tells of one device.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from lite_runtime.device import Condition, DeviceFacts
from lite_runtime.latency_statistics import Distribution, Estimate, RatioEstimate
from lite_runtime.manifest import Part
from lite_runtime.result_files import read_result_file

Metric = Literal["encode", "per_token"]


class BenchError(ValueError):
    """A measurement cannot be made, read or compared as asked; the message says what to do."""


class Protocol(Part):
    """How it was measured.

    Attributes:
        tokens: decoded for every sentence; end of sentence is not chosen before.
        sentences: of each bundle's golden ones, in every block.
        rounds: in each of them every candidate has one block, a process of its own; in every other round in
            reverse order. The round before them is not reported.
        warm_up: decodes at the start of each block that are not reported.
        confidence: of percentiles' intervals.
        ratio_confidence: of ratios' intervals.
        noise_limit: a candidate whose blocks are further apart than this is called noisy.
    """

    tokens: int
    sentences: int
    rounds: int
    warm_up: int
    confidence: float
    ratio_confidence: float
    noise_limit: float


class MeasuredBundle(Part):
    """Which bundle it was. ``source_lengths`` are in tokens, one for each sentence of a block."""

    label: str
    model_id: str
    source_language: str
    target_language: str
    weights_sha256: str
    parameters: int
    scores: dict[str, float]
    source_lengths: tuple[int, ...]


class Candidate(Part):
    """One way to run one bundle. ``bytes`` is the size of its files; ``against`` the candidate it is compared with."""

    name: str
    bundle: str
    format: Literal["onnx", "executorch"]
    precision: str
    cache: Literal["explicit", "stateful"]
    threads: int
    bytes: int
    against: str | None = None

    @property
    def form(self) -> str:
        """Its name without the bundle's."""
        cache = "" if self.cache == "explicit" else f" {self.cache}"
        return f"{self.format} {self.precision}{cache}, {self.threads} thread{'s' if self.threads > 1 else ''}"


class Block(Part):
    """One process's samples. ``encode`` and ``sentence`` have one figure a sentence, ``steps`` one a token.

    ``session`` counts how often the measurement was resumed: blocks of two sessions are no neighbours.
    """

    candidate: str
    round: int
    session: int
    before: Condition
    after: Condition
    runtime: str
    abi: str
    peak_rss: int
    load: float
    encode: tuple[float, ...]
    steps: tuple[tuple[float, ...], ...]
    sentence: tuple[float, ...]


class Summary(Part):
    """A candidate in figures.

    Attributes:
        load: reading the model until it can run.
        first_token: the encoder and the first step.
        per_token: every step after the first.
        undisturbed_token: a step when nothing else is in the way (see latency_statistics.undisturbed).
        sentence: a whole sentence of ``Protocol.tokens`` tokens.
        tokens_per_second: of whole sentences, their encoding included.
        peak_memory: bytes, the largest resident set of any block.
        charge_per_1000_tokens: microampere-hours by the battery's counter, everything the device did included;
            None where the counter did not tell: ``notes`` say why.
        spread: between blocks, of the median step (see latency_statistics.spread).
        noisy: the spread is above the limit.
    """

    candidate: str
    blocks: int
    load: Estimate
    encode: Distribution
    first_token: Distribution
    per_token: Distribution
    undisturbed_token: Estimate
    sentence: Distribution
    tokens_per_second: Estimate
    peak_memory: int
    charge_per_1000_tokens: float | None
    spread: float
    noisy: bool
    notes: tuple[str, ...] = ()


class Ratio(Part):
    """A candidate's times over another's; above 1 is slower. Both are compared undisturbed.

    ``stored`` is against a file of an earlier moment, ``interleaved`` from neighbouring blocks of one run.
    ``regressed``: the whole interval is above 1 + ``limit``.
    """

    metric: Metric
    candidate: str
    against: str
    kind: Literal["interleaved", "stored"]
    estimate: RatioEstimate
    limit: float | None = None

    @property
    def regressed(self) -> bool:
        return self.limit is not None and self.estimate.low > 1 + self.limit

    @property
    def undecided(self) -> bool:
        """The interval is too wide to tell."""
        return self.limit is not None and self.estimate.low <= 1 + self.limit < self.estimate.high


class BenchResult(Part):
    """One device's measurement. ``device.emulated`` says why its times are no measurements, where they are none."""

    kind: Literal["bench"] = "bench"
    schema_version: Literal[1] = 1
    producer: str
    started: str = Field(description="ISO 8601, UTC")
    device: DeviceFacts
    protocol: Protocol
    bundles: tuple[MeasuredBundle, ...]
    candidates: tuple[Candidate, ...]
    summaries: tuple[Summary, ...]
    ratios: tuple[Ratio, ...] = ()
    notes: tuple[str, ...] = ()
    blocks: tuple[Block, ...]

    @property
    def regressions(self) -> tuple[Ratio, ...]:
        """Ratios above their limit."""
        return tuple(ratio for ratio in self.ratios if ratio.regressed)


def blocks_of(blocks: Sequence[Block], candidate: str) -> list[Block]:
    """A candidate's blocks, in order."""
    return [block for block in blocks if block.candidate == candidate]


def read_result(path: Path) -> BenchResult:
    """A result that was written before.

    Raises:
        BenchError: it is none, damaged, or of another version.
    """
    return read_result_file(path, BenchResult, "bench", "lite-export bench", BenchError)
