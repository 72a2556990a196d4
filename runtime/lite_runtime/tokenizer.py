"""Text to token ids and back; unknown characters survive the trip."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import sentencepiece

from lite_runtime.manifest import TokenIds


class TokenizerError(ValueError):
    """A tokenizer file cannot be used; the message names it and what is wrong."""


@dataclass(frozen=True)
class Encoded:
    """A sentence as the encoder reads it.

    ``ids`` end in eos. ``unknowns`` are the surfaces of its unknown tokens, in order; the last ``trailing``
    of them stand at the sentence's very end, with no known token after the first of them.
    """

    ids: tuple[int, ...]
    unknowns: tuple[str, ...]
    trailing: int = 0


@runtime_checkable
class Tokenizer(Protocol):
    """One vocabulary. Implementations: SentencePiece (our models), fairseq BPE (imported ones)."""

    def encode(self, text: str) -> Encoded:
        """Token ids of one sentence, eos included."""
        ...

    def decode(self, ids: tuple[int, ...], unknowns: tuple[str, ...], trailing: int = 0) -> str:
        """Text of target ids (with or without eos); the i-th unknown token becomes ``unknowns[i]``, or nothing.

        Of the last ``trailing`` unknowns, those that no token stands for are appended: the emoji that ends a
        sentence is kept even where the model dropped it.
        """
        ...


class SentencePieceTokenizer:
    """A SentencePiece model whose ids are the translation model's.

    Args:
        path: ``tokenizer.model``.
        tokens: the special ids; they must be the file's.
        replacements: applied in order to every text before it is encoded (say, curly quotes to ASCII).

    Raises:
        TokenizerError: no such file, a damaged one, or one with other special ids.
    """

    def __init__(self, path: Path, tokens: TokenIds, replacements: Mapping[str, str]) -> None:
        self.path = path
        self.tokens = tokens
        self.replacements = dict(replacements)
        self._pieces = _load(path)
        theirs = {"pad": self._pieces.pad_id(), "eos": self._pieces.eos_id(), "unk": self._pieces.unk_id()}
        for name, theirs_id in theirs.items():
            if theirs_id != (ours := getattr(tokens, name)):
                raise TokenizerError(f"{path} has {name} {theirs_id}, the model {ours}: it belongs to another model")

    def encode(self, text: str) -> Encoded:
        """See Tokenizer.encode. Replacements come first; control characters become nothing, line breaks spaces."""
        for old, new in self.replacements.items():
            text = text.replace(old, new)
        pieces = self._pieces.encode(without_controls(text), out_type=str)
        ids = self._pieces.piece_to_id(pieces)
        # An unknown piece is spelt as its own surface.
        unknowns = tuple(p for p, i in zip(pieces, ids, strict=True) if i == self.tokens.unk)
        trailing = 0
        for piece, token in zip(reversed(pieces), reversed(ids), strict=True):
            if token == self.tokens.unk:
                trailing += 1
            elif piece != _SPACE:
                break
        return Encoded((*ids, self.tokens.eos), unknowns, trailing)

    def decode(self, ids: tuple[int, ...], unknowns: tuple[str, ...], trailing: int = 0) -> str:
        """See Tokenizer.decode.

        Raises:
            TokenizerError: an id the file does not have.
        """
        surfaces = iter(unknowns)
        pieces: list[str] = []
        used = 0
        for token in ids:
            if token >= self._pieces.get_piece_size():
                raise TokenizerError(f"{self.path} has no token {token}: it belongs to another model")
            if token == self.tokens.unk:
                pieces.append(next(surfaces, ""))
                used += 1
            elif not self._pieces.is_control(token):
                pieces.append(self._pieces.id_to_piece(token))
        text = self._pieces.decode([piece for piece in pieces if piece])
        lost = unknowns[max(used, len(unknowns) - trailing) :]
        return re.sub(" {2,}", " ", " ".join([text, *lost])).strip()


_SPACE = "\u2581"


def without_controls(text: str) -> str:
    """``text`` without control characters (NUL among them) and lone surrogates; white space stays."""
    return "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs"))


def _load(path: Path) -> sentencepiece.SentencePieceProcessor:
    if not path.is_file():
        raise TokenizerError(f"no tokenizer at {path}")
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except RuntimeError as error:
        raise TokenizerError(f"{path} is damaged or no SentencePiece model ({error}); copy it again") from None
