"""Translation quality on test sets: sacreBLEU's BLEU and chrF, as they are and with quotes and spaces normalised.

1. find or name the sets  2. translate each, or read what was translated (``evaluate_outputs``)
3. score raw and normalised, each system against the first  4. return them as ``evaluate_result`` has them.
"""

from __future__ import annotations

import copy
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lite_export.evaluate_result import SetScores
from lite_export.loading import REPLACEMENTS, model_translator, token_ids
from lite_runtime.manifest import Decoding
from lite_runtime.quality import compare, score
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
    """Sources with one reference each, in order.

    Attributes:
        total: pairs of the whole set, of which these may be the first.
        direction: as in ``en-fr``; None where no card tells it, and the same set nevertheless.
    """

    name: str
    sources: tuple[str, ...]
    references: tuple[str, ...]
    total: int
    direction: str | None = field(default=None, compare=False)

    @property
    def title(self) -> str:
        """Its name with its direction."""
        return " ".join(filter(None, (self.name, self.direction)))

    @property
    def sha256(self) -> str:
        """Of its sources and references: equal for sets on which scores can be compared."""
        return text_sha256((*self.sources, *self.references))


@dataclass(frozen=True)
class Output:
    """A system's translations of a set. ``seconds`` is the wall time; None for what was translated elsewhere."""

    system: str
    hypotheses: tuple[str, ...]
    seconds: float | None = None


def read_set(path: Path, name: str, limit: int | None = None, swapped: bool = False) -> EvaluationSet:
    """A ``SOURCE<TAB>TARGET`` file (plain, .gz or .xz) as an evaluation set.

    Args:
        limit: only the first so many pairs.
        swapped: the file's first column is the reference.

    Raises:
        CorpusError: no such file, damaged, empty, or a line without exactly one tab.
    """
    pairs = list(read_pairs(path))
    if not pairs:
        raise CorpusError(f"{path} has no sentence pairs")
    columns = tuple(zip(*pairs[:limit], strict=True))
    sources, references = reversed(columns) if swapped else columns
    return EvaluationSet(name, sources, references, len(pairs))


def find_sets(
    data: Path, source: str, target: str, limit: int | None = None, splits: Sequence[str] = ("test",)
) -> list[EvaluationSet]:
    """The sets of a data folder: ``mt/SOURCE-TARGET/SPLIT.NAME.tsv[.xz]``, or the opposite pair's, swapped.

    A dev set that has its name in common with a test set is called ``NAME-dev``.

    Args:
        splits: ``test``, ``dev`` or both.

    Raises:
        CorpusError: there is none for this direction, or one is damaged.
    """
    for folder, swapped in ((f"{source}-{target}", False), (f"{target}-{source}", True)):
        paths = [path for split in splits for path in _files(data / "mt" / folder, f"{split}.*")]
        if paths:
            sets = [read_set(path, _set_name(path), limit, swapped) for path in paths]
            return [replace(one, direction=f"{source}-{target}") for one in sets]
    wanted = splits[0] if len(splits) == 1 else f"{{{','.join(splits)}}}"
    raise CorpusError(
        f"no {' or '.join(splits)} sets at {data}/mt/{source}-{target}/{wanted}.*.tsv.xz: pass their folder with --data"
    )


def _files(folder: Path, name: str) -> list[Path]:
    """Files of pairs: no backups, and not what tells of them."""
    return sorted(path for kind in (".tsv", ".tsv.gz", ".tsv.xz") for path in folder.glob(f"{name}{kind}"))


def _set_name(path: Path) -> str:
    split, name = path.name.split(".")[:2]
    return f"{name}-dev" if split == "dev" and _files(path.parent, f"test.{name}") else name


def text_sha256(lines: Iterable[str]) -> str:
    """Of lines of text, as a file with a line break after each would have it."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def normalise(text: str) -> str:
    """Straight quotes, no soft hyphens, and one plain space wherever there is space of any kind."""
    return _SPACES.sub(" ", text.translate(_PLAIN)).strip()


def translate_set(
    translator: Translator,
    system: str,
    data: EvaluationSet,
    options: TranslateOptions | None = None,
    batch_size: int = 32,
    on_progress: Callable[[int], None] | None = None,
) -> Output:
    """A model's translations of a set, each of one line.

    Args:
        on_progress: called with the number of sentences done so far.
    """
    started = time.monotonic()
    translations = translator.translate(data.sources, options, batch_size, on_progress)
    return Output(system, tuple(t.text.replace("\n", " ") for t in translations), time.monotonic() - started)


def score_outputs(
    data: EvaluationSet, outputs: Sequence[Output], resamples: int = 1000
) -> tuple[list[SetScores], dict[str, str]]:
    """Score systems on a set, raw and with both sides normalised, each against the first of them.

    Returns:
        Their scores in order, and sacreBLEU's signatures.
    """
    hypotheses = [output.hypotheses for output in outputs]
    raw, signatures = compare(hypotheses, data.references, resamples)
    plain = [[normalise(h) for h in system] for system in hypotheses]
    normalised, _ = compare(plain, [normalise(r) for r in data.references], resamples)
    scores = [
        SetScores(
            system=output.system,
            set_name=data.name,
            direction=data.direction,
            set_sha256=data.sha256,
            sentences=len(data.sources),
            empty=sum(not h.strip() for h in output.hypotheses),
            against=outputs[0].system if number else None,
            seconds=output.seconds,
            raw=raw[number],
            normalised=normalised[number],
        )
        for number, output in enumerate(outputs)
    ]
    return scores, signatures


def validation_bleu(model: LiteTransformer, tokenizer: Path, sources: list[str], references: list[str]) -> float:
    """Greedy sacreBLEU of a model in training (``lite_transformer.training.loop.ScoreBleu``)."""
    pieces = SentencePieceTokenizer(tokenizer, token_ids(model.config), REPLACEMENTS)
    # A copy, for a session leaves its hooks on the model, which goes on learning.
    translator = model_translator(copy.deepcopy(model), pieces, Decoding())
    translations = translator.translate(sources, TranslateOptions(beam=1), 32)
    return score([t.text for t in translations], references)[0].bleu
