"""Translation quality on test sets: sacreBLEU's BLEU and chrF, as they are and with quotes and spaces normalised.

1. find or name the sets  2. translate each  3. score raw and normalised  4. return plain values with signatures.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from lite_export.loading import REPLACEMENTS, model_translator, token_ids
from lite_runtime.manifest import Decoding
from lite_runtime.quality import Quality, score
from lite_runtime.tokenizer import SentencePieceTokenizer
from lite_runtime.translator import TranslateOptions, Translator
from lite_transformer.training.corpus import CorpusError, read_pairs

if TYPE_CHECKING:
    from lite_transformer.model import LiteTransformer

# French references mix curly and straight quotes, no-break and plain spaces: a difference of typing, not of meaning.
_PLAIN = str.maketrans(
    {"‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "\u00ad": None}  # the last: soft hyphen
)
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class EvaluationSet:
    """Sources with one reference each, in order."""

    name: str
    sources: tuple[str, ...]
    references: tuple[str, ...]


@dataclass(frozen=True)
class SetResult:
    """One model on one set. ``signatures`` say how sacreBLEU scored; ``seconds`` are the translation's wall time."""

    set_name: str
    sentences: int
    seconds: float
    raw: Quality
    normalised: Quality
    signatures: Mapping[str, str]
    hypotheses: tuple[str, ...]

    @property
    def sentences_per_second(self) -> float:
        return self.sentences / self.seconds if self.seconds else 0.0


def read_set(path: Path, name: str, limit: int | None = None, swapped: bool = False) -> EvaluationSet:
    """A ``SOURCE<TAB>TARGET`` file (plain, .gz or .xz) as an evaluation set.

    Args:
        limit: only the first so many pairs.
        swapped: the file's first column is the reference.

    Raises:
        CorpusError: no such file, damaged, empty, or a line without exactly one tab.
    """
    pairs = list(islice(read_pairs(path), limit))
    if not pairs:
        raise CorpusError(f"{path} has no sentence pairs")
    columns = tuple(zip(*pairs, strict=True))
    sources, references = reversed(columns) if swapped else columns
    return EvaluationSet(name, sources, references)


def find_sets(data: Path, source: str, target: str, limit: int | None = None) -> list[EvaluationSet]:
    """The test sets of a data folder: ``mt/SOURCE-TARGET/test.NAME.tsv[.xz]``, or the opposite pair's, swapped.

    Raises:
        CorpusError: there is none for this direction, or one is damaged.
    """
    for folder, swapped in ((f"{source}-{target}", False), (f"{target}-{source}", True)):
        paths = sorted((data / "mt" / folder).glob("test.*.tsv*"))
        if paths:
            return [read_set(path, path.name.split(".")[1], limit, swapped) for path in paths]
    raise CorpusError(f"no test sets at {data}/mt/{source}-{target}/test.*.tsv.xz: pass their folder with --data")


def normalise(text: str) -> str:
    """Straight quotes, no soft hyphens, and one plain space wherever there is space of any kind."""
    return _SPACES.sub(" ", text.translate(_PLAIN)).strip()


def evaluate(
    translator: Translator,
    data: EvaluationSet,
    options: TranslateOptions | None = None,
    batch_size: int = 32,
    on_progress: Callable[[int], None] | None = None,
) -> SetResult:
    """Translate a set and score it, raw and with both sides normalised.

    Args:
        on_progress: called with the number of sentences done so far.
    """
    started = time.monotonic()
    hypotheses = [t.text for t in translator.translate(data.sources, options, batch_size, on_progress)]
    seconds = time.monotonic() - started
    raw, signatures = score(hypotheses, data.references)
    normalised, _ = score([normalise(h) for h in hypotheses], [normalise(r) for r in data.references])
    return SetResult(data.name, len(hypotheses), seconds, raw, normalised, signatures, tuple(hypotheses))


def validation_bleu(model: LiteTransformer, tokenizer: Path, sources: list[str], references: list[str]) -> float:
    """Greedy sacreBLEU of a model in training (``lite_transformer.training.loop.ScoreBleu``)."""
    pieces = SentencePieceTokenizer(tokenizer, token_ids(model.config), REPLACEMENTS)
    translations = model_translator(model, pieces, Decoding()).translate(sources, TranslateOptions(beam=1), 32)
    return score([t.text for t in translations], references)[0].bleu
