"""What is measured, and in which order.

Candidates are (bundle, format, precision, cache, threads). In every round each has one block; a candidate and the one
it is compared with are neighbours, and every other round runs in reverse (A B, B A, ...): a device that slows down
or speeds up evenly favours neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from pydantic import TypeAdapter

from lite_runtime.bench_result import BenchError, Candidate, MeasuredBundle, Protocol
from lite_runtime.bundle import Bundle
from lite_runtime.golden import load_golden
from lite_runtime.latency_statistics import CONFIDENCE, RATIO_CONFIDENCE
from lite_runtime.manifest import FormatEntry
from lite_runtime.runner_protocol import Measure, RunnerRequest

FORMATS = ("onnx", "executorch")


@dataclass(frozen=True)
class BenchOptions:
    """What to measure of the bundles (None: all there is), and how."""

    format: str | None = None
    precision: str | None = None
    threads: tuple[int, ...] = (1,)
    tokens: int = 40
    sentences: int = 12
    rounds: int = 30
    warm_up: int = 1
    noise_limit: float = 0.05

    def protocol(self) -> Protocol:
        """The part that results tell."""
        return Protocol(
            tokens=self.tokens,
            sentences=self.sentences,
            rounds=self.rounds,
            warm_up=self.warm_up,
            confidence=CONFIDENCE,
            ratio_confidence=RATIO_CONFIDENCE,
            noise_limit=self.noise_limit,
        )


@dataclass(frozen=True)
class Contender:
    """A candidate, and what it takes to run it.

    Attributes:
        place: where its bundle lies on the device.
        entry: the form of the bundle.
        sources: token ids of the sentences to decode.
    """

    candidate: Candidate
    bundle: Bundle
    place: str
    entry: FormatEntry
    sources: tuple[tuple[int, ...], ...]

    def request(self, options: BenchOptions) -> RunnerRequest:
        """One block."""
        return RunnerRequest(
            bundle=self.place,
            format=self.candidate.format,
            precision=self.candidate.precision,
            cache=self.candidate.cache,
            threads=self.candidate.threads,
            task=Measure(sources=self.sources, tokens=options.tokens, warm_up=options.warm_up),
        )


@dataclass(frozen=True)
class Plan:
    """Everything to measure on one device. ``against`` is the label of the bundle the others are compared with."""

    options: BenchOptions
    contenders: tuple[Contender, ...]
    bundles: tuple[MeasuredBundle, ...]
    against: str | None = None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return tuple(contender.candidate for contender in self.contenders)

    def order(self, number: int) -> tuple[Contender, ...]:
        """Who runs in a round, one after another."""
        return self.contenders if number % 2 == 0 else self.contenders[::-1]

    def fingerprint(self, device: str) -> str:
        """Equal for equal measurements: tells whether a journal's blocks belong to this plan."""
        sources = TypeAdapter(list).dump_json([contender.sources for contender in self.contenders])
        parts = [device.encode(), self.options.protocol().model_dump_json().encode(), sources]
        parts += [part.model_dump_json().encode() for part in (*self.bundles, *self.candidates)]
        return hashlib.sha256(b"\n".join(parts)).hexdigest()


def make_plan(bundles: Sequence[Bundle], against: Bundle | None, options: BenchOptions) -> Plan:
    """Every chosen form of every bundle, on every number of threads.

    Args:
        against: a bundle to measure in the same rounds: each candidate is compared with its form of the same name.
            Without it each candidate is compared with the first.

    Raises:
        BenchError: nothing to measure, a form that ``against`` lacks, or more tokens than a bundle decodes.
    """
    every = [*bundles, *([against] if against else [])]
    labels = _labels(every)
    places = {label: f"bundles/{number}" for number, label in enumerate(labels)}
    contenders: list[Contender] = []
    for label, bundle in zip(labels, bundles, strict=False):
        for entry in _entries(bundle, options):
            for threads in options.threads:
                contender = _contender(label, bundle, places[label], entry, threads, options)
                peer = None
                if against:
                    same = against.format(entry.format, entry.precision, entry.cache)
                    peer = _contender(labels[-1], against, places[labels[-1]], same, threads, options)
                contenders += _compared(contender, peer, contenders)
    measured = tuple(_measured(label, bundle, options) for label, bundle in zip(labels, every, strict=True))
    return Plan(options, tuple(contenders), measured, labels[-1] if against else None)


def _compared(contender: Contender, peer: Contender | None, before: Sequence[Contender]) -> list[Contender]:
    """A candidate with whom it is compared; the peer, if any, beside it, once."""
    other = peer.candidate.name if peer else before[0].candidate.name if before else None
    own = replace(contender, candidate=contender.candidate.model_copy(update={"against": other}))
    return [own, peer] if peer and all(peer.candidate.name != c.candidate.name for c in before) else [own]


def _labels(bundles: Sequence[Bundle]) -> list[str]:
    """Folder names, made different where they are not."""
    labels: list[str] = []
    for bundle in bundles:
        name, count = bundle.folder.resolve().name, 1
        label = name
        while label in labels:
            count += 1
            label = f"{name} #{count}"
        labels.append(label)
    return labels


def _entries(bundle: Bundle, options: BenchOptions) -> tuple[FormatEntry, ...]:
    # Complains where there is none of that name.
    bundle.format(options.format, options.precision)
    found = [e for e in bundle.formats(options.format, options.precision) if e.format in FORMATS]
    if not found:
        raise BenchError(f"{bundle.folder}: the native runner runs {' and '.join(FORMATS)}, which were not chosen here")
    return tuple(found)


def _contender(
    label: str, bundle: Bundle, place: str, entry: FormatEntry, threads: int, options: BenchOptions
) -> Contender:
    if options.tokens > (most := bundle.manifest.limits.max_target):
        raise BenchError(f"{bundle.folder} decodes at most {most} tokens: ask for --tokens {most} or fewer")
    candidate = Candidate(
        name=f"{label}: {entry.name}, {threads} thread{'s' if threads > 1 else ''}",
        bundle=label,
        format="onnx" if entry.format == "onnx" else "executorch",
        precision=entry.precision,
        cache=entry.cache,
        threads=threads,
        bytes=sum(file.bytes for file in entry.files),
    )
    return Contender(candidate, bundle, place, entry, _sources(bundle, options.sentences))


def _sources(bundle: Bundle, count: int) -> tuple[tuple[int, ...], ...]:
    """Golden sentences, from the shortest to the longest in even steps of rank."""
    golden = load_golden(bundle.folder / PurePosixPath(bundle.manifest.golden.sentences))
    ranked = sorted((sentence.source for sentence in golden), key=lambda source: (len(source), source))
    count = min(count, len(ranked))
    return tuple(ranked[round(i * (len(ranked) - 1) / max(count - 1, 1))] for i in range(count))


def _measured(label: str, bundle: Bundle, options: BenchOptions) -> MeasuredBundle:
    manifest = bundle.manifest
    return MeasuredBundle(
        label=label,
        model_id=manifest.card.model_id,
        source_language=manifest.card.source_language,
        target_language=manifest.card.target_language,
        weights_sha256=manifest.weights_sha256,
        parameters=manifest.card.parameters,
        scores=manifest.card.scores,
        source_lengths=tuple(len(source) for source in _sources(bundle, options.sentences)),
    )
