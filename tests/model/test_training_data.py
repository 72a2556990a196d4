"""Text to batches: what is cleaned away, what is refused, and that every sentence is seen as often as asked."""

from __future__ import annotations

import collections
import gzip
import lzma
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_transformer.training.batches import collate, epoch_batches
from lite_transformer.training.corpus import CorpusError, clean, fingerprint, held_out, read_corpus, read_pairs
from lite_transformer.training.prepare import TokenPairs, prepare
from lite_transformer.training.recipe import Cleaning, Corpus, Recipe
from reference_models import tiny_config

RULES = Cleaning()
LINES = [("A dog runs.", "Un chien court."), ("Good morning!", "Bonjour !"), ("été", "\u4f60\u597d")]
WORDS = st.lists(st.sampled_from(["Dog", "dog", "cat,", "été", "42", "!", "\u00a0", "\t"]), max_size=12).map(" ".join)
PAIRS = st.lists(st.tuples(WORDS, WORDS), max_size=30)


def write(path: Path, pairs: list[tuple[str, str]]) -> Path:
    content = "".join(f"{s}\t{t}\n" for s, t in pairs).encode()
    compress: Callable[[bytes], bytes] = {".xz": lzma.compress, ".gz": gzip.compress}.get(path.suffix, bytes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compress(content))
    return path


# Reading.


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.tsv.xz"])
def test_every_container_reads_the_same(tmp_path: Path, name: str) -> None:
    assert list(read_pairs(write(tmp_path / name, LINES))) == LINES


@pytest.mark.parametrize("reverse", [False, True])
def test_one_file_trains_both_directions(tmp_path: Path, reverse: bool) -> None:
    write(tmp_path / "a.tsv", LINES)
    found = list(read_corpus(tmp_path, Corpus(name="a", path="a.tsv", reverse=reverse)))
    assert found == ([(b, a) for a, b in LINES] if reverse else LINES)


@pytest.mark.parametrize("name", ["a.tsv.gz", "a.tsv.xz"])
@pytest.mark.parametrize("damage", ["cut", "flip", "plain"])
def test_damaged_archives(tmp_path: Path, name: str, damage: str) -> None:
    path = write(tmp_path / name, LINES * 50)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[len(content) // 2 :] = bytes(255 - b for b in content[len(content) // 2 :])
    else:
        content = bytearray(b"not compressed at all\tno\n")
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=f"{name} is damaged or not UTF-8"):
        list(read_pairs(path))


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255), suffix=st.sampled_from([".gz", ".xz", ""]))
def test_a_flipped_byte_is_a_corpus_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, suffix: str
) -> None:
    path = write(tmp_path_factory.getbasetemp() / f"flipped.tsv{suffix}", LINES * 20)
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content)
    try:
        list(read_pairs(path))
    except CorpusError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("line", ["one column", "three\tcolumns\there", ""])
def test_a_line_needs_one_tab(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"good\tbon\n{line}\n")
    with pytest.raises(CorpusError, match=rf"a\.tsv:2: expected SOURCE<TAB>TARGET, found {line.count(chr(9)) + 1}"):
        list(read_pairs(path))


def test_missing_unreadable_and_not_text(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no data file .*--data"):
        list(read_pairs(tmp_path / "none.tsv"))
    with pytest.raises(CorpusError, match=r"cannot read .*directory"):
        list(read_pairs(tmp_path))
    (tmp_path / "latin.tsv").write_bytes("été\tété\n".encode("latin1"))
    with pytest.raises(CorpusError, match="not UTF-8"):
        list(read_pairs(tmp_path / "latin.tsv"))


# Cleaning.


def test_held_out_sentences_without_spaces(tmp_path: Path) -> None:
    """A character of such a script counts as a word; a sentence of two is too common to be kept out."""
    tests = [("今天天气很好，我们去公园散步吧。", "天気がいいので公園へ行きましょう。"), ("你好", "สวัสดีครับ")]
    forbidden = held_out([write(tmp_path / "test.tsv", tests)])
    assert not list(clean(tests[:1], RULES, forbidden))
    assert fingerprint("你好") not in forbidden


@settings(max_examples=100, deadline=None)
@given(pairs=PAIRS, tests=PAIRS)
def test_cleaned_pairs(tmp_path_factory: pytest.TempPathFactory, pairs: list, tests: list) -> None:
    tests = [(s.replace("\t", ""), t.replace("\t", "")) for s, t in tests]
    forbidden = held_out([write(tmp_path_factory.getbasetemp() / "held.tsv", tests)])
    kept = list(clean(pairs, RULES, forbidden))
    marks = [(fingerprint(s), fingerprint(t)) for s, t in kept]
    assert len(set(marks)) == len(marks)
    originals = [tuple(" ".join(side.split()) for side in pair) for pair in pairs]
    rest = iter(originals)
    assert all(pair in rest for pair in kept), "order is kept and nothing is invented"
    for pair, mark in zip(kept, marks, strict=True):
        assert all(mark)
        assert not forbidden.intersection(mark)
        assert not any(re.search(r"\s\s|^\s|\s$|[\t\xa0]", side) for side in pair)
    assert list(clean(kept, RULES, forbidden)) == kept, "cleaning twice changes nothing"


def test_test_sentences_are_recognised_in_any_form(tmp_path: Path) -> None:
    forbidden = held_out([write(tmp_path / "t.tsv", [("The dog runs away.", "Le chien s'enfuit."), ("Yes.", "Oui.")])])
    pairs = [
        ("  the DOG runs, away!", "Autre phrase ici."),
        ("Another sentence here.", "LE CHIEN s\u2019enfuit"),
        ("Yes.", "Oui."),
        ("The dog runs.", "Le chien court."),
    ]
    assert list(clean(pairs, RULES, forbidden)) == pairs[2:]


@pytest.mark.parametrize(
    ("source", "target", "kept"),
    [
        ("word " * 80, "mot " * 80, True),
        ("word " * 81, "mot " * 80, False),
        ("a long enough sentence", "court", False),
        ("short", "une phrase bien trop longue", False),
        ("Go!", "Va !", True),
        ("...", "!!!", False),
        ("", "mot", False),
    ],
)
def test_plausible_lengths(source: str, target: str, kept: bool) -> None:
    assert bool(list(clean([(source, target)], RULES, frozenset()))) is kept


# Batches.


def token_pairs(lengths: list[tuple[int, int]]) -> TokenPairs:
    """Sentences of the given lengths; every token id of sentence i is 4 + i, so that each can be recognised."""
    sides = []
    for side in (0, 1):
        ids = [4 + i for i, pair in enumerate(lengths) for _ in range(pair[side])]
        offsets = np.cumsum([0, *(pair[side] for pair in lengths)], dtype=np.int64)
        sides += [np.array(ids, dtype=np.int32), offsets]
    return TokenPairs(*sides)


CORPORA = st.lists(
    st.lists(st.tuples(st.integers(1, 15), st.integers(1, 15)), min_size=1, max_size=40), min_size=1, max_size=3
)


@settings(max_examples=60, deadline=None)
@given(lengths=CORPORA, data=st.data(), limit=st.integers(16, 120), epoch=st.integers(0, 3))
def test_batches_hold_every_sentence_as_often_as_asked(
    lengths: list, data: st.DataObject, limit: int, epoch: int
) -> None:
    corpora = [token_pairs(pairs) for pairs in lengths]
    repeats = [data.draw(st.sampled_from([0.4, 1.0, 2.0, 2.5])) for _ in corpora]
    batches = epoch_batches(corpora, repeats, epoch, 7, limit)
    seen = collections.Counter((int(c), int(i)) for rows in batches for c, i in rows)
    for number, (corpus, repeat) in enumerate(zip(corpora, repeats, strict=True)):
        counts = [seen[number, i] for i in range(len(corpus))]
        assert set(counts) <= {int(repeat), int(repeat) + (repeat % 1 > 0)}
        assert sum(counts) == int(repeat) * len(corpus) + round((repeat % 1) * len(corpus))
    for rows in batches:
        batch = collate(rows, corpora, tiny_config())
        assert max(batch.source.numel(), batch.labels.numel()) <= limit
        assert batch.decoder_input.shape == batch.labels.shape


def test_epochs_are_deterministic_and_differ() -> None:
    rng = np.random.default_rng(0)
    corpora = [token_pairs([tuple(pair) for pair in rng.integers(1, 20, (300, 2)).tolist()])]

    def epoch(number: int, seed: int = 1) -> list[list[list[int]]]:
        return [rows.tolist() for rows in epoch_batches(corpora, [0.5], number, seed, 200)]

    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(1)
    assert epoch(0) != epoch(0, seed=2)
    halves = [{i for rows in epoch(number) for _, i in rows} for number in (0, 1)]
    assert halves[0] != halves[1], "a fraction takes a new part each epoch"


@pytest.mark.parametrize(("spread", "least"), [(0.0, 0.97), (0.25, 0.86)])
def test_batches_waste_little_on_padding(spread: float, least: float) -> None:
    """On either side, also where a sentence and its translation differ in length."""
    rng = np.random.default_rng(0)
    source = np.clip(rng.geometric(0.08, 20_000), 1, 60)
    target = np.clip(np.rint(source * rng.lognormal(0.05, spread, len(source))), 1, 80).astype(int)
    corpora = [token_pairs(list(zip(source.tolist(), target.tolist(), strict=True)))]
    batches = epoch_batches(corpora, [1.0], 0, 1, 1024)
    for lengths in (source, target):
        cells = sum(len(rows) * (lengths[rows[:, 1]].max() + 1) for rows in batches)
        assert (lengths + 1).sum() / cells > least


def test_a_batch_reads_as_the_decoder_needs_it() -> None:
    corpora = [token_pairs([(2, 3), (1, 1)])]
    batch = collate(np.array([[0, 0], [0, 1]]), corpora, tiny_config())
    assert batch.source.tolist() == [[4, 4, 2], [5, 2, 1]]
    assert batch.decoder_input.tolist() == [[2, 4, 4, 4], [2, 5, 1, 1]]
    assert batch.labels.tolist() == [[4, 4, 4, 2], [5, 2, 1, 1]]


# Preparing.

NOUNS = ["dog", "cat", "bird", "house", "tree", "river", "stone", "friend", "window", "garden", "letter", "song"]
VERBS = ["sees", "likes", "finds", "hears", "paints", "loses"]


def synthetic(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences and the same words backwards: small, but something to learn."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        words = [str(rng.choice(NOUNS)), str(rng.choice(VERBS)), str(rng.choice(NOUNS)), str(rng.integers(10, 99))]
        pairs.append((" ".join(words), " ".join(reversed(words))))
    return pairs


def recipe(**changed: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "source_language": "en",
            "target_language": "fr",
            "train": [{"name": "a", "path": "a.tsv.xz"}, {"name": "b", "path": "b.tsv", "repeat": 0.5}],
            "validation": {"name": "dev", "path": "dev.tsv"},
            "held_out": ["test.tsv"],
            "tokenizer": {"vocab": 50},
            "cleaning": {"unknown_rate": 0.3},
            "schedule": {"steps": 10},
            **changed,
        }
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name, count, seed in (("a.tsv.xz", 150, 1), ("b.tsv", 50, 2), ("dev.tsv", 10, 3), ("test.tsv", 10, 4)):
        write(folder / name, synthetic(count, seed))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_prepared_data(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    prepared = prepare(recipe(), data, tmp_path / "run", said.append)
    assert [len(c) > 0 for c in prepared.corpora] == [True, True]
    assert len(prepared.validation) == len(prepared.validation_text) == 10
    assert prepared.corpora[0].source.max() < 50
    source, target = prepared.corpora[0].pair(0)
    assert 0 < len(source) <= 120
    assert 0 < len(target) <= 120
    stages = ["reading 2 test files", "cleaning a (1/2)", "a: ", "cleaning b (2/2)", "b: ", "training the tokenizer"]
    stages += ["tokenizer: 50 pieces", "encoding a (1/2)", "encoding b (2/2)"]
    assert [line.startswith(stage) for line, stage in zip(said, stages, strict=True)] == [True] * len(stages)
    assert not list((tmp_path / "run").glob("*.partial"))


def test_unknown_symbols_are_put_on_both_sides(data: Path, tmp_path: Path) -> None:
    prepared = prepare(recipe(), data, tmp_path / "run", lambda _: None)
    corpus = prepared.corpora[0]
    both = [tuple(int((side == 3).sum()) for side in corpus.pair(i)) for i in range(len(corpus))]
    assert set(both) == {(0, 0), (1, 1)}
    assert 0.15 < sum(pair == (1, 1) for pair in both) / len(both) < 0.45


def test_the_cache_is_used_until_something_changes(data: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def again(chosen: Recipe) -> bool:
        """Whether the data was prepared anew."""
        said.clear()
        prepare(chosen, data, tmp_path / "run", said.append)
        return bool(said)

    assert again(recipe())
    assert not again(recipe())
    assert not again(recipe(schedule={"steps": 99}, dropout=0.3)), "training settings do not touch the data"
    assert again(recipe(tokenizer={"vocab": 52}))
    assert again(recipe())
    renamed = [{"name": "c", "path": "a.tsv.xz"}, {"name": "b", "path": "b.tsv"}]
    assert again(recipe(train=renamed)), "a corpus under another name"
    write(data / "b.tsv", synthetic(60, 5))
    assert again(recipe())


def test_a_failed_preparation_leaves_the_old_cache(data: Path, tmp_path: Path) -> None:
    prepare(recipe(), data, tmp_path / "run", lambda _: None)
    before = contents(tmp_path / "run/data")
    (data / "b.tsv").write_text("no tab\n")
    with pytest.raises(CorpusError, match=r"b\.tsv:1"):
        prepare(recipe(), data, tmp_path / "run", lambda _: None)
    assert contents(tmp_path / "run/data") == before


def test_two_processes_prepare_the_same_bytes(data: Path, tmp_path: Path) -> None:
    """Python's hash() differs between processes; nothing may depend on it."""
    prepare(recipe(), data, tmp_path / "here", lambda _: None)
    (tmp_path / "recipe.json").write_text(recipe().model_dump_json())
    code = (
        "import sys; from pathlib import Path; from lite_transformer.training.prepare import prepare; "
        "from lite_transformer.training.recipe import load_recipe; "
        "prepare(load_recipe(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    arguments = [str(tmp_path / "recipe.json"), str(data), str(tmp_path / "there")]
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=environment, capture_output=True)
    here, there = contents(tmp_path / "here/data"), contents(tmp_path / "there/data")
    assert set(here) == set(there)
    for name in here:
        assert here[name] == there[name], name


def test_too_little_text_for_the_tokenizer(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="cannot train a tokenizer of 5000 pieces"):
        prepare(recipe(tokenizer={"vocab": 5000}), data, tmp_path / "run", lambda _: None)
    with pytest.raises(CorpusError, match="no sentence is left after cleaning"):
        prepare(recipe(cleaning={"max_words": 1}), data, tmp_path / "run", lambda _: None)
    assert not (tmp_path / "run/data").exists()
