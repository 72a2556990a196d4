"""Parallel text: reading, cleaning, and keeping test sentences out of it."""

from __future__ import annotations

import gzip
import lzma
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lite_transformer.training.recipe import Cleaning, Corpus

Pair = tuple[str, str]
_SPACE = re.compile(r"\s+")
_WORDS = re.compile(r"\w+")
# Thai to Khmer, kana and Han: scripts without spaces, in which a character stands for a word well enough.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


class CorpusError(ValueError):
    """A data file is missing or not what it should be."""


def read_pairs(path: Path) -> Iterator[Pair]:
    """Pairs of a ``SOURCE<TAB>TARGET`` file (.tsv, .tsv.gz or .tsv.xz).

    Raises:
        CorpusError: no such file, not UTF-8, or a line without exactly one tab.
    """
    for number, line in enumerate(_lines(path), 1):
        columns = line.split("\t")
        if len(columns) != 2:
            raise CorpusError(f"{path}:{number}: expected SOURCE<TAB>TARGET, found {len(columns)} columns")
        yield columns[0], columns[1]


def is_monolingual(path: Path) -> bool:
    """Whether a file is text of one language, a sentence a line: .txt, .txt.gz or .txt.xz."""
    return path.suffix == ".txt" or path.suffixes[-2:] in ([".txt", ".gz"], [".txt", ".xz"])


def read_sentences(path: Path) -> Iterator[str]:
    """Sentences of a monolingual file, without empty lines. Raises CorpusError as ``read_pairs``, and for a tab."""
    for number, line in enumerate(_lines(path), 1):
        if "\t" in line:
            raise CorpusError(f"{path}:{number}: a tab in a .txt file, which holds a sentence a line; name pairs .tsv")
        if sentence := _SPACE.sub(" ", line).strip():
            yield sentence


def _lines(path: Path) -> Iterator[str]:
    opener: Any = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    try:
        with opener(path, "rt", encoding="utf8", newline="\n") as lines:
            for line in lines:
                yield line.rstrip("\n")
    except FileNotFoundError:
        raise CorpusError(f"no data file {path}: check its name, and --data if it is relative to that") from None
    except (lzma.LZMAError, zlib.error, gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} is damaged or not UTF-8 text: {error}") from None
    except OSError as error:
        raise CorpusError(f"cannot read {path}: {error.strerror or error}") from None


def read_corpus(data: Path, corpus: Corpus) -> Iterator[Pair]:
    """A recipe's corpus, source first. Raises CorpusError as ``read_pairs`` does."""
    pairs = read_pairs(data / corpus.path)
    return ((source, target) for target, source in pairs) if corpus.reverse else pairs


def fingerprint(text: str) -> str:
    """A sentence's words in lower case: equal for sentences that differ only in form."""
    return " ".join(_WORDS.findall(unicodedata.normalize("NFKC", text).lower()))


def held_out(paths: Iterable[Path]) -> frozenset[str]:
    """Fingerprints of both sides of every test sentence of three words or more."""
    seen: set[str] = set()
    for path in paths:
        for pair in read_pairs(path):
            seen.update(f for f in map(fingerprint, pair) if max(f.count(" ") + 1, len(_UNSPACED.findall(f))) >= 3)
    return frozenset(seen)


def clean(pairs: Iterable[Pair], rules: Cleaning, forbidden: frozenset[str]) -> Iterator[Pair]:
    """Pairs worth training on: no duplicates, no test sentences, plausible lengths."""
    seen: set[tuple[str, ...]] = set()
    for raw_source, raw_target in pairs:
        source, target = _SPACE.sub(" ", raw_source).strip(), _SPACE.sub(" ", raw_target).strip()
        marks = fingerprint(source), fingerprint(target)
        if not all(marks) or marks in seen or forbidden.intersection(marks):
            continue
        if _plausible(source, target, rules):
            seen.add(marks)
            yield source, target


def _plausible(source: str, target: str, rules: Cleaning) -> bool:
    longest = max(source.count(" "), target.count(" ")) + 1
    # Three added characters keep very short pairs ("Go!" / "Va !") from failing on their ratio.
    ratio = (len(target) + 3) / (len(source) + 3)
    return longest <= rules.max_words and rules.min_ratio <= ratio <= rules.max_ratio
