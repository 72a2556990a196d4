"""Translation quality by sacreBLEU, and the parity ladder's last rung: an exported file's BLEU against its origin's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lite_runtime.manifest import Part
from lite_runtime.parity import Breach, Rung
from lite_runtime.search import SearchError
from lite_runtime.session import SessionError
from lite_runtime.tolerances import Tolerance
from lite_runtime.translator import TranslateOptions, Translator

# A difference with a smaller p-value is called one.
SIGNIFICANT = 0.05


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


class CorpusScore(Part):
    """A corpus score, 0 to 100, with its 95 % bootstrap interval.

    Attributes:
        difference: to the first system's score; None for the first.
        p_value: of that difference, by a two-sided paired bootstrap test (Koehn 2004); None for the first.
    """

    value: float
    low: float
    high: float
    difference: float | None = None
    p_value: float | None = None

    @property
    def verdict(self) -> Literal["better", "worse", "no difference"] | None:
        """What the test says at ``SIGNIFICANT``; None for the first system."""
        if self.difference is None or self.p_value is None:
            return None
        if self.p_value >= SIGNIFICANT:
            return "no difference"
        return "better" if self.difference > 0 else "worse"


class CorpusScores(Part):
    """What one system scored on one set."""

    bleu: CorpusScore
    chrf: CorpusScore


def compare(
    outputs: Sequence[Sequence[str]], references: Sequence[str], resamples: int = 1000
) -> tuple[list[CorpusScores], dict[str, str]]:
    """Score systems on one set, each tested against the first by sacreBLEU's own paired bootstrap.

    Args:
        outputs: every system's translations, as many as there are references.
        resamples: how often the set is drawn anew. Takes about 72 bytes for each of them and each sentence.

    Returns:
        The systems' scores in order, and the signatures, which hold the seed and the resamples.
    """
    from sacrebleu.metrics import BLEU, CHRF
    from sacrebleu.significance import PairedTest

    named = [(str(number), list(hypotheses)) for number, hypotheses in enumerate(outputs)]
    metrics = {"bleu": BLEU(), "chrf": CHRF()}
    signatures, results = PairedTest(named, metrics, [list(references)], test_type="bs", n_samples=resamples)()
    # Results come under sacreBLEU's names (BLEU, chrF2), in the order of ``metrics``.
    names = dict(zip(metrics, signatures, strict=True))
    scores = [
        CorpusScores(**{ours: _against_first(results[theirs], n, same) for ours, theirs in names.items()})
        for n, same in enumerate(hypotheses == named[0][1] for _, hypotheses in named)
    ]
    return scores, {ours: str(signatures[theirs]) for ours, theirs in names.items()}


def _against_first(results: Sequence[Any], number: int, same: bool) -> CorpusScore:
    result = results[number]
    own = {"value": float(result.score), "low": float(result.mean - result.ci), "high": float(result.mean + result.ci)}
    if number == 0:
        return CorpusScore(**own)
    # For equal outputs every resampled difference is 0, which sacreBLEU counts as never arising by chance.
    p_value = 1.0 if same else float(result.p_value)
    return CorpusScore(**own, difference=own["value"] - float(results[0].score), p_value=p_value)


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
