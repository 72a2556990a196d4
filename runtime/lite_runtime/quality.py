"""Translation quality by sacreBLEU, and the parity ladder's last rung: an exported file's BLEU against its origin's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lite_runtime.parity import Breach, Rung
from lite_runtime.search import SearchError
from lite_runtime.session import SessionError
from lite_runtime.tolerances import Tolerance
from lite_runtime.translator import TranslateOptions, Translator


@dataclass(frozen=True)
class Quality:
    """Corpus scores, 0 to 100."""

    bleu: float
    chrf: float


def score(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[Quality, dict[str, str]]:
    """Corpus BLEU and chrF against one reference each, and their sacreBLEU signatures."""
    from sacrebleu.metrics import BLEU, CHRF

    bleu, chrf = BLEU(), CHRF()
    quality = Quality(
        bleu=bleu.corpus_score(list(hypotheses), [list(references)]).score,
        chrf=chrf.corpus_score(list(hypotheses), [list(references)]).score,
    )
    return quality, {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())}


@dataclass(frozen=True)
class QualityReference:
    """A test set, and what the reference scored on it with the same beam."""

    sources: tuple[str, ...]
    references: tuple[str, ...]
    beam: int
    quality: Quality


def measure(translator: Translator, sources: Sequence[str], references: Sequence[str], beam: int) -> Quality:
    """Translate a test set and score it."""
    translations = translator.translate(sources, TranslateOptions(beam=beam), batch_size=32)
    return score([t.text for t in translations], references)[0]


def check_quality(translator: Translator, reference: QualityReference, tolerance: Tolerance) -> Rung:
    """Rung 6: BLEU on a test set, at most ``tolerance.bleu`` from the reference's."""
    try:
        quality = measure(translator, reference.sources, reference.references, reference.beam)
    except (SearchError, SessionError) as error:
        return _rung(reference, tolerance, math.inf, str(error))
    off = abs(reference.quality.bleu - quality.bleu)
    at = (
        f"BLEU {quality.bleu:.2f} against {reference.quality.bleu:.2f},"
        f" chrF {quality.chrf:.2f} against {reference.quality.chrf:.2f}"
    )
    return _rung(reference, tolerance, off, at)


def _rung(reference: QualityReference, tolerance: Tolerance, off: float, at: str) -> Rung:
    passed = off <= tolerance.bleu
    return Rung(
        name="bleu",
        passed=passed,
        checked=len(reference.sources),
        worst=off,
        at=at,
        tolerance=tolerance.bleu,
        breach=None if passed else Breach(batch=0, step=0, tensor="BLEU", difference=off, detail=at),
    )
