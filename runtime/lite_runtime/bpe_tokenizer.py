"""The tokenizer of imported fairseq models: Moses words, byte-pair merges, a fairseq dictionary.

1. normalise punctuation, split words (sacremoses)  2. merge characters by rank (Sennrich et al. 2016)
3. look pieces up; and back.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lite_runtime.tokenizer import Encoded, TokenizerError, without_controls

VOCABULARY, CODES = "vocabulary.json", "bpe.codes"
_CONTINUED, _WORD_END = "@@", "</w>"
_CONTROL, _EOS, _UNK = frozenset((0, 1, 2)), 2, 3


class BytePairs:
    """Merges learned by subword-nmt (codes format 0.2).

    Args:
        path: the codes: a version line, then one merge of two symbols per line, best first.

    Raises:
        TokenizerError: no such file, or another format.
    """

    def __init__(self, path: Path) -> None:
        version, *lines = _read(path).rstrip("\n").split("\n")
        if version.strip() != "#version: 0.2":
            raise TokenizerError(f"{path} is no subword-nmt codes file: its first line must be '#version: 0.2'")
        self._ranks: dict[tuple[str, ...], int] = {}
        for number, line in enumerate(lines, 2):
            pair = tuple(line.rstrip("\r").split(" "))
            if len(pair) != 2:
                raise TokenizerError(f"{path}:{number}: expected two symbols, found {line[:40]!r}")
            self._ranks.setdefault(pair, number)
        self.split = functools.lru_cache(maxsize=65536)(self._split)

    def _split(self, word: str) -> tuple[str, ...]:
        """Pieces of one word; every piece but its last ends in ``@@``."""
        symbols = [*word[:-1], word[-1] + _WORD_END]
        while len(symbols) > 1:
            best = min(itertools.pairwise(symbols), key=self._rank)
            if best not in self._ranks:
                break
            symbols = _merged(symbols, best)
        *inner, last = symbols
        pieces = [symbol + _CONTINUED for symbol in inner]
        return (*pieces, last.removesuffix(_WORD_END))

    def _rank(self, pair: tuple[str, str]) -> int:
        return self._ranks.get(pair, sys.maxsize)


def _merged(symbols: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """Join every occurrence of ``pair``, from left to right."""
    joined: list[str] = []
    index = 0
    while index < len(symbols):
        size = 2 if tuple(symbols[index : index + 2]) == pair else 1
        joined.append("".join(symbols[index : index + size]))
        index += size
    return joined


class FairseqBpeTokenizer:
    """Implements ``lite_runtime.tokenizer.Tokenizer`` for a folder written by ``lite-export import-fairseq``.

    A vocabulary without capitals was made from lower-cased text, and so is what this tokenizer reads.

    Args:
        folder: holds ``vocabulary.json`` and ``bpe.codes``.

    Raises:
        TokenizerError: a file is missing or damaged, or sacremoses is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        vocabulary = _load_vocabulary(folder / VOCABULARY)
        self._target: list[str] = vocabulary["target"]
        self._ids = {token: number for number, token in enumerate(vocabulary["source"])}
        self._lower = not any(token != token.lower() for token in self._ids)
        self._pairs = BytePairs(folder / CODES)
        moses = _sacremoses()
        source = vocabulary.get("source_language") or "en"
        self._normaliser = moses.MosesPunctNormalizer(lang=source)
        self._splitter = moses.MosesTokenizer(lang=source)
        self._joiner = moses.MosesDetokenizer(lang=vocabulary.get("target_language") or "en")

    def encode(self, text: str) -> Encoded:
        """See Tokenizer.encode."""
        text = self._normaliser.normalize(without_controls(text))
        words = self._splitter.tokenize(text.lower() if self._lower else text, aggressive_dash_splits=True)
        pieces = [piece for word in words for piece in self._pairs.split(word)]
        ids = [self._ids.get(piece, _UNK) for piece in pieces]
        surfaces = tuple(piece.removesuffix(_CONTINUED) for piece, i in zip(pieces, ids, strict=True) if i == _UNK)
        known = max((position for position, i in enumerate(ids, 1) if i != _UNK), default=0)
        return Encoded((*ids, _EOS), surfaces, trailing=len(ids) - known)

    def decode(self, ids: tuple[int, ...], unknowns: tuple[str, ...], trailing: int = 0) -> str:
        """See Tokenizer.decode.

        Raises:
            TokenizerError: an id the vocabulary does not have.
        """
        if too_large := [i for i in ids if i >= len(self._target)]:
            raise TokenizerError(f"{self.folder / VOCABULARY} has no token {too_large[0]}: it belongs to another model")
        surfaces = iter(unknowns)
        pieces = [next(surfaces, "") if i == _UNK else self._target[i] for i in ids if i not in _CONTROL]
        used = sum(i == _UNK for i in ids)
        pieces += unknowns[max(used, len(unknowns) - trailing) :]
        return str(self._joiner.detokenize(_words(pieces)))


def _words(pieces: Iterable[str]) -> list[str]:
    """Whole words of BPE pieces; a last piece that wants a continuation is a word as it is."""
    joined = " ".join(piece for piece in pieces if piece)
    return joined.replace(f"{_CONTINUED} ", "").removesuffix(_CONTINUED).split()


def _read(path: Path) -> str:
    try:
        return path.read_text("utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"cannot read {path}: {error}") from None


def _load_vocabulary(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise TokenizerError(f"{path} is not JSON ({error}); import the checkpoint again") from None
    if not isinstance(content, dict) or content.get("kind") != "fairseq-bpe":
        raise TokenizerError(f"{path} is not a fairseq-bpe vocabulary")
    for side in ("source", "target"):
        tokens = content.get(side)
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise TokenizerError(f"{path}: '{side}' must be a list of tokens")
    return content


def _sacremoses() -> Any:
    try:
        return importlib.import_module("sacremoses")
    except ImportError:
        raise TokenizerError(
            "imported fairseq models need sacremoses to split words: pip install 'lite-export[fairseq]'"
        ) from None
