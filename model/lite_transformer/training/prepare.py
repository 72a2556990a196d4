"""From text files to a tokenizer and flat token arrays, cached by the content of the recipe."""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece

from lite_transformer.checkpoint import TOKENIZER, CheckpointError, load_config
from lite_transformer.files import staged_folder
from lite_transformer.training.corpus import CorpusError, Pair, clean, held_out, read_corpus
from lite_transformer.training.recipe import Corpus, Recipe, TokenizerRecipe

Report = Callable[[str], None]
_KEY = "key.json"
# Outside any European vocabulary, so SentencePiece maps them to <unk>: what a user's emoji becomes.
_UNKNOWN = "\u2603\u2744\u265e\u262f\U0001f600\U0001f680\u30c4\u6f22"


@dataclass(frozen=True)
class TokenPairs:
    """Token ids of one corpus, each side flat: sentence i is ``ids[offsets[i]:offsets[i + 1]]``, without eos."""

    source: np.ndarray
    source_offsets: np.ndarray
    target: np.ndarray
    target_offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.source_offsets) - 1

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of each sentence, both sides."""
        return np.diff(self.source_offsets), np.diff(self.target_offsets)

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of one pair."""
        s, t = self.source_offsets, self.target_offsets
        return self.source[s[index] : s[index + 1]], self.target[t[index] : t[index + 1]]


@dataclass(frozen=True)
class Prepared:
    """Everything a run reads: tokenizer file, training corpora (as in the recipe), validation pairs."""

    tokenizer: Path
    corpora: tuple[TokenPairs, ...]
    validation: TokenPairs
    validation_text: tuple[Pair, ...]


def prepare(recipe: Recipe, data: Path, work: Path, report: Report = print) -> Prepared:
    """Clean, tokenize and cache a recipe's data under ``work/data``; a second call reads the cache.

    Args:
        data: folder the recipe's paths are relative to.
        work: the run's folder.

    Raises:
        CorpusError: a file is missing or damaged, has no usable pair, or there is too little text for the tokenizer; or
            the run has begun with other data, whose tokenizer its weights belong to.
        CheckpointError: the model that the recipe starts from has no usable tokenizer.
    """
    folder = work / "data"
    key = _key(recipe, data)
    before = _kept_key(folder / _KEY)
    if before != key:
        if before and recipe.start is None and (work / "state").exists():
            changed = ", ".join(sorted(name for name in key if key[name] != before.get(name)))
            raise CorpusError(
                f"{work} was trained on other data ({changed} changed): restore them, or name another --output;"
                f" to go on with new data, start: from a finished model"
            )
        with staged_folder(folder) as staging:
            _build(recipe, data, staging, report)
            (staging / _KEY).write_text(json.dumps(key))
    return Prepared(
        tokenizer=folder / TOKENIZER,
        corpora=tuple(_load(folder / f"{c.name}.npz") for c in recipe.train),
        validation=_load(folder / "validation.npz"),
        validation_text=tuple(read_corpus(data, recipe.validation)),
    )


def _key(recipe: Recipe, data: Path) -> dict[str, object]:
    """What the prepared data depends on."""
    files = [*(c.path for c in recipe.train), recipe.validation.path, *recipe.held_out]
    chosen = recipe.model_dump(mode="json", include={"seed", "tokenizer", "cleaning", "held_out"})
    key = {
        **chosen,
        "files": {name: _sha256(data / name) for name in files if (data / name).is_file()},
        "corpora": [[c.name, c.path, *(["reverse"] if c.reverse else [])] for c in recipe.train],
    }
    if recipe.start:
        key["tokenizer"] = hashlib.sha256(_start_tokenizer(Path(recipe.start))).hexdigest()
    return key


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kept_key(marker: Path) -> dict[str, object]:
    """What the data were prepared from; empty where there are none, or nobody knows."""
    try:
        return dict(json.loads(marker.read_text("utf8")))
    except (OSError, ValueError, TypeError):
        return {}


def _build(recipe: Recipe, data: Path, folder: Path, report: Report) -> None:
    tests = [data / path for path in (*recipe.held_out, recipe.validation.path)]
    report(f"reading {len(tests)} test files, to keep their sentences out of training")
    forbidden = held_out(tests)
    count = len(recipe.train)
    texts: list[list[Pair]] = []
    for number, corpus in enumerate(recipe.train, 1):
        report(f"cleaning {corpus.name} ({number}/{count})")
        texts.append(list(clean(read_corpus(data, corpus), recipe.cleaning, forbidden)))
        report(f"{corpus.name}: {len(texts[-1]):,} pairs after cleaning")
    tokenizer = _tokenizer(recipe, texts, folder / TOKENIZER, report)
    report(f"tokenizer: {tokenizer.get_piece_size()} pieces")
    longest, usable = recipe.cleaning.max_tokens, 0
    for number, (corpus, pairs) in enumerate(zip(recipe.train, texts, strict=True), 1):
        report(f"encoding {corpus.name} ({number}/{count})")
        encoded = _encode(_with_unknowns(pairs, corpus, recipe), tokenizer, longest)
        _save(folder / f"{corpus.name}.npz", encoded)
        usable += len(encoded)
    if not usable:
        raise CorpusError(f"no pair is left to train on: look at the recipe's cleaning (max_tokens is {longest})")
    validation = _encode(list(read_corpus(data, recipe.validation)), tokenizer, longest)
    if not len(validation):
        path = data / recipe.validation.path
        raise CorpusError(f"{path} has no pair to validate on: it is empty, or all are over {longest} tokens")
    _save(folder / "validation.npz", validation)


def _tokenizer(
    recipe: Recipe, texts: Sequence[Sequence[Pair]], path: Path, report: Report
) -> sentencepiece.SentencePieceProcessor:
    """The one of the model that the recipe starts from, or a new one; written to ``path``."""
    if recipe.start is None:
        report(f"training the tokenizer on up to {recipe.tokenizer.sentences:,} sentences")
        return train_tokenizer(texts, recipe.tokenizer, path, recipe.seed)
    start = Path(recipe.start)
    path.write_bytes(content := _start_tokenizer(start))
    try:
        tokenizer = sentencepiece.SentencePieceProcessor(model_proto=content)
    except RuntimeError as error:
        raise CheckpointError(f"{start / TOKENIZER} is no SentencePiece model ({error}); copy it again") from None
    pieces, config = tokenizer.get_piece_size(), load_config(start)
    if not pieces == config.source_vocab == config.target_vocab:
        wanted = f"{config.source_vocab} and {config.target_vocab}"
        raise CheckpointError(f"{start / TOKENIZER} has {pieces} pieces, its model wants {wanted}; copy both again")
    return tokenizer


def _start_tokenizer(start: Path) -> bytes:
    try:
        return (start / TOKENIZER).read_bytes()
    except OSError as error:
        raise CheckpointError(f"a run cannot start from {start}: no {TOKENIZER} ({error.strerror})") from None


def train_tokenizer(
    texts: Sequence[Sequence[Pair]], recipe: TokenizerRecipe, path: Path, seed: int
) -> sentencepiece.SentencePieceProcessor:
    """Train a joint unigram model on a sample of both sides; special ids are fairseq's 0 1 2 3.

    Raises:
        CorpusError: no text, or too little for a vocabulary of this size.
    """
    lines = [side for pairs in texts for pair in pairs for side in pair]
    sample = random.Random(seed).sample(lines, min(recipe.sentences, len(lines)))
    if not sample:
        raise CorpusError("no sentence is left after cleaning: look at the recipe's cleaning rules and held_out files")
    try:
        path.write_bytes(_train_unigram(sample, recipe))
    except RuntimeError as error:
        raise CorpusError(f"cannot train a tokenizer of {recipe.vocab} pieces on this text: {error}") from None
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def _train_unigram(sample: Sequence[str], recipe: TokenizerRecipe) -> bytes:
    # Written to memory: given a file name, SentencePiece stores it inside the model.
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sample),
        model_writer=model,
        vocab_size=recipe.vocab,
        model_type="unigram",
        character_coverage=recipe.coverage,
        normalization_rule_name="nmt_nfkc",
        split_digits=True,
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    return model.getvalue()


def _with_unknowns(pairs: list[Pair], corpus: Corpus, recipe: Recipe) -> list[Pair]:
    """Append the same unknown symbol to both sides of a few pairs: the model learns to carry it over."""
    # Seeded by a digest: Python's own hash() of a string changes with every process.
    digest = hashlib.sha256(f"{recipe.seed}/{corpus.name}".encode()).digest()
    rng = random.Random(digest)
    marked = []
    for source, target in pairs:
        if rng.random() < recipe.cleaning.unknown_rate:
            symbol = rng.choice(_UNKNOWN)
            source, target = f"{source} {symbol}", f"{target} {symbol}"
        marked.append((source, target))
    return marked


def _encode(pairs: Sequence[Pair], tokenizer: sentencepiece.SentencePieceProcessor, max_tokens: int) -> TokenPairs:
    encoded = zip(*(tokenizer.encode([p[side] for p in pairs]) for side in (0, 1)), strict=True)
    kept = [(s, t) for s, t in encoded if 0 < len(s) <= max_tokens and 0 < len(t) <= max_tokens]
    return TokenPairs(*_flatten([s for s, _ in kept]), *_flatten([t for _, t in kept]))


def _flatten(sentences: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, sentences)], dtype=np.int64)
    return np.fromiter((i for s in sentences for i in s), dtype=np.int32, count=offsets[-1]), offsets


def _save(path: Path, pairs: TokenPairs) -> None:
    np.savez(path, **vars(pairs))


def _load(path: Path) -> TokenPairs:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return TokenPairs(**{name: arrays[name] for name in arrays})
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise CorpusError(f"{path} is damaged ({error}): remove {path.parent}, and it is made again") from None
