"""Climb the parity ladder with every format a bundle holds.

The reference is PyTorch, another bundle, or what PyTorch recorded at export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lite_runtime.bundle import Bundle
from lite_runtime.device import DeviceFacts
from lite_runtime.golden import GOLDEN_BEAM, GoldenHypothesis, GoldenSentence, load_golden
from lite_runtime.manifest import FormatEntry, Part
from lite_runtime.parity import Reference, Rung, check_hypotheses, check_one_call, check_steps, translate_golden
from lite_runtime.quality import QualityReference, check_quality
from lite_runtime.recording import load_recording, make_script, play
from lite_runtime.session import Session
from lite_runtime.tolerances import Tolerance, looser, tolerance_of

# Sentences decoded together: their lengths differ, so every batch is padded somewhere.
BATCH = 10


class FormatParity(Part):
    """One format's climb."""

    name: str
    format: str
    precision: str
    cache: str
    sentences: int
    rungs: tuple[Rung, ...]

    @property
    def passed(self) -> bool:
        return all(rung.passed for rung in self.rungs)


class ParityReport(Part):
    """A bundle's climb. ``reference`` tells what it was compared with; ``against`` names a bundle.

    ``device`` is where the native runner ran it; None where this process did.
    """

    bundle: str
    model_id: str
    reference: Literal["pytorch", "recorded", "bundle"]
    against: str | None = None
    device: DeviceFacts | None = None
    formats: tuple[FormatParity, ...]

    @property
    def passed(self) -> bool:
        return all(entry.passed for entry in self.formats)


@dataclass(frozen=True)
class Climb:
    """What to climb, and against what.

    Attributes:
        reference: PyTorch as a session, run beside each format; None reads the bundle's recorded steps.
        against: another bundle to compare with instead, format by format.
        sentences: use only the first so many golden sentences.
        quality: a test set and the reference's scores on it, for the last rung.
        entries: formats to climb with; None for all.
    """

    bundle: Bundle
    reference: Session | None = None
    against: Bundle | None = None
    sentences: int | None = None
    quality: QualityReference | None = None
    entries: tuple[FormatEntry, ...] | None = None

    @property
    def chosen(self) -> tuple[FormatEntry, ...]:
        return self.bundle.manifest.formats if self.entries is None else self.entries

    def golden(self) -> tuple[GoldenSentence, ...]:
        """The sentences to decode."""
        return load_golden(self.bundle.folder / self.bundle.manifest.golden.sentences)[: self.sentences]

    def pieces(self) -> int:
        """How often ``run`` will call ``on_batch``."""
        batches = -(-len(self.golden()) // BATCH)
        steps = 1 if self.reference is None and self.against is None else batches
        return len(self.chosen) * (steps + batches + (self.quality is not None))

    def run(self, on_batch: Callable[[], None] = lambda: None) -> ParityReport:
        """Climb with every format; ``on_batch`` is called after each piece of work."""
        golden = self.golden()
        recorded = None if self.against else self._references(golden, self.reference)
        formats = []
        for entry in self.chosen:
            tolerance, references = tolerance_of(entry), recorded
            wanted: Sequence[GoldenSentence] = golden
            if self.against is not None:
                peer = _counterpart(self.against, entry)
                session = self.against.session_of(peer)
                tolerance = looser(tolerance, tolerance_of(peer))
                references, wanted = self._references(golden, session), self._translated(golden, session)
            assert references is not None
            formats.append(self._climb(entry, wanted, references, tolerance, on_batch))
        return ParityReport(
            bundle=str(self.bundle.folder),
            model_id=self.bundle.manifest.card.model_id,
            reference="bundle" if self.against else "pytorch" if self.reference else "recorded",
            against=str(self.against.folder) if self.against else None,
            formats=tuple(formats),
        )

    def _climb(
        self,
        entry: FormatEntry,
        golden: Sequence[GoldenSentence],
        references: Sequence[Reference],
        tolerance: Tolerance,
        on_batch: Callable[[], None],
    ) -> FormatParity:
        manifest, session = self.bundle.manifest, self.bundle.session_of(entry)
        rungs = list(check_steps(session, references, entry.state, tolerance, manifest.tokens.pad, on_batch))
        rungs.append(
            check_hypotheses(
                session,
                golden,
                manifest.tokens,
                manifest.limits,
                manifest.decoding,
                tolerance,
                beams_of(entry),
                on_batch,
                BATCH,
            )
        )
        if "translate" in entry.extras and manifest.decoding.beam in (1, GOLDEN_BEAM):
            whole = self.bundle.one_graph(entry)
            rungs.append(check_one_call(whole.translate, golden, manifest.limits, manifest.decoding, tolerance, BATCH))
        if self.quality is not None:
            rungs.append(check_quality(self.bundle.translator_of(session), self.quality, tolerance))
            on_batch()
        return FormatParity(
            name=entry.name,
            format=entry.format,
            precision=entry.precision,
            cache=entry.cache,
            sentences=len(golden),
            rungs=tuple(rungs),
        )

    def _references(self, golden: Sequence[GoldenSentence], reference: Session | None) -> list[Reference]:
        """Every script with the reference's moments, kept: each format is compared with the same."""
        if reference is None:
            return [load_recording(self.bundle.folder / self.bundle.manifest.golden.steps)]
        tokens = self.bundle.manifest.tokens
        scripts = [
            make_script([g.source for g in part], [g.greedy.tokens for g in part], tokens.start, tokens.pad)
            for part in _parts(golden)
        ]
        return [(script, list(play(reference, script))) for script in scripts]

    def _translated(self, golden: Sequence[GoldenSentence], session: Session) -> list[GoldenSentence]:
        """The golden sentences as the other bundle translates them."""
        manifest, result = self.bundle.manifest, []
        for part in _parts(golden):
            sources = [g.source for g in part]
            greedy, beam = (
                translate_golden(session, sources, manifest.tokens, manifest.limits, manifest.decoding, size)
                for size in (1, GOLDEN_BEAM)
            )
            for sentence, best, best_beams in zip(part, greedy, beam, strict=True):
                found = {
                    "greedy": GoldenHypothesis.of(best[0]),
                    "beam": tuple(GoldenHypothesis.of(h) for h in best_beams),
                }
                result.append(sentence.model_copy(update=found))
        return result


def climb(bundle: Bundle, reference: Session | None = None) -> ParityReport:
    """The whole ladder with every format; see ``Climb``."""
    return Climb(bundle, reference).run()


def _parts(golden: Sequence[GoldenSentence]) -> Iterator[Sequence[GoldenSentence]]:
    return (golden[i : i + BATCH] for i in range(0, len(golden), BATCH))


def _counterpart(bundle: Bundle, entry: FormatEntry) -> FormatEntry:
    """The same format of another bundle, or its nearest."""

    def likeness(other: FormatEntry) -> tuple[bool, bool, bool]:
        return (other.format == entry.format, other.precision == entry.precision, other.cache == entry.cache)

    return max(bundle.manifest.formats, key=likeness)


def beams_of(entry: FormatEntry) -> tuple[int, ...]:
    """The beams a form can search with."""
    # ExecuTorch's buffers can be neither read nor copied, so a beam cannot move to another row.
    return (1,) if entry.format == "executorch" and entry.cache == "stateful" else (1, GOLDEN_BEAM)
