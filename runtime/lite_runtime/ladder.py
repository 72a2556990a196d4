"""Climb the parity ladder with every format a bundle holds, against PyTorch live or as recorded at export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from lite_runtime.bundle import Bundle
from lite_runtime.golden import GoldenSentence, load_golden
from lite_runtime.manifest import FormatEntry, Part
from lite_runtime.parity import Reference, Rung, check_steps, check_tokens
from lite_runtime.recording import load_recording, make_script, play
from lite_runtime.session import Session
from lite_runtime.tolerances import TOLERANCES

# Sentences decoded together: their lengths differ, so every batch is padded somewhere.
BATCH = 10


class FormatParity(Part):
    """One format's climb."""

    format: str
    precision: str
    sentences: int
    rungs: tuple[Rung, ...]

    @property
    def passed(self) -> bool:
        return all(rung.passed for rung in self.rungs)


class ParityReport(Part):
    """A bundle's climb. ``reference`` tells whether PyTorch ran, or its recording was read."""

    bundle: str
    model_id: str
    reference: Literal["pytorch", "recorded"]
    formats: tuple[FormatParity, ...]

    @property
    def passed(self) -> bool:
        return all(entry.passed for entry in self.formats)


def climb(
    bundle: Bundle,
    reference: Session | None = None,
    sentences: int | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> ParityReport:
    """Check every format of a bundle.

    Args:
        reference: PyTorch as a session, run beside each format; None reads the bundle's recorded steps.
        sentences: use only the first so many golden sentences.
        on_batch: called after each piece of work (``pieces`` tells how many there are).
    """
    golden = load_golden(bundle.folder / bundle.manifest.golden.sentences)[:sentences]
    formats = [_climb_format(bundle, entry, golden, reference, on_batch) for entry in bundle.manifest.formats]
    return ParityReport(
        bundle=str(bundle.folder),
        model_id=bundle.manifest.card.model_id,
        reference="pytorch" if reference else "recorded",
        formats=tuple(formats),
    )


def _climb_format(
    bundle: Bundle,
    entry: FormatEntry,
    golden: Sequence[GoldenSentence],
    reference: Session | None,
    on_batch: Callable[[], None],
) -> FormatParity:
    manifest, tolerance = bundle.manifest, TOLERANCES[entry.precision]
    session = bundle.session(entry.format, entry.precision)
    references = _references(bundle, golden, reference)
    outputs, steps = check_steps(session, references, entry.state, tolerance, on_batch)
    tokens = check_tokens(
        session, golden, manifest.tokens, manifest.limits, manifest.decoding, tolerance, on_batch, BATCH
    )
    return FormatParity(
        format=entry.format, precision=entry.precision, sentences=len(golden), rungs=(outputs, steps, tokens)
    )


def _references(bundle: Bundle, golden: Sequence[GoldenSentence], reference: Session | None) -> list[Reference]:
    if reference is None:
        return [load_recording(bundle.folder / bundle.manifest.golden.steps)]
    tokens = bundle.manifest.tokens
    parts = [golden[i : i + BATCH] for i in range(0, len(golden), BATCH)]
    scripts = [
        make_script([g.source for g in part], [g.greedy.tokens for g in part], tokens.start, tokens.pad)
        for part in parts
    ]
    return [(script, play(reference, script)) for script in scripts]


def pieces(bundle: Bundle, live: bool, sentences: int | None = None) -> int:
    """How often ``climb`` will call ``on_batch``."""
    golden = load_golden(bundle.folder / bundle.manifest.golden.sentences)[:sentences]
    batches = -(-len(golden) // BATCH)
    return len(bundle.manifest.formats) * (batches + (batches if live else 1))
