"""The tokenizer of imported models, on codes and a dictionary small enough to follow by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lite_runtime.bpe_tokenizer import BytePairs, FairseqBpeTokenizer
from lite_runtime.tokenizer import TokenizerError

CODES = ["l o", "lo w</w>", "e r</w>", "n e", "ne w", "t h", "th e</w>", "i s</w>", "T h", "Th e</w>"]
CODES += ["& q", "&q u", "&qu o", "&quo t", "&quot ;</w>", "@ -", "@- @</w>"]
SOURCE = ["the", "low", "lo@@", "w@@", "er", "new@@", "er@@", "is", ".", ",", "&apos;s", "n@@", "The", "&quot;", "@-@"]
TARGET = ["le", "bas", "nou@@", "veau", "est", ".", "l&apos;", "homme", "&quot;", "@-@"]
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, SOURCE, TARGET)
    (tmp_path / "bpe.codes").write_text("\n".join(["#version: 0.2", *CODES, ""]))
    return tmp_path


def write(folder: Path, source: list[str], target: list[str]) -> None:
    content = {"kind": "fairseq-bpe", "source_language": "en", "target_language": "fr"}
    (folder / "vocabulary.json").write_text(
        json.dumps({**content, "source": SPECIALS + source, "target": SPECIALS + target})
    )


@pytest.mark.parametrize(
    ("word", "pieces"),
    [
        ("low", ("low",)),
        ("lower", ("lo@@", "w@@", "er")),
        ("newer", ("new@@", "er")),
        ("new", ("ne@@", "w")),
        ("the", ("the",)),
        ("then", ("th@@", "e@@", "n")),
        ("lolo", ("lo@@", "l@@", "o")),
        ("a", ("a",)),
        ("☃☃", ("☃@@", "☃")),
    ],
)
def test_merges_go_best_rank_first_and_know_the_words_end(folder: Path, word: str, pieces: tuple[str, ...]) -> None:
    assert BytePairs(folder / "bpe.codes").split(word) == pieces


def test_every_occurrence_of_a_pair_is_merged(tmp_path: Path) -> None:
    (tmp_path / "codes").write_text("#version: 0.2\na b\nab ab\n")
    pairs = BytePairs(tmp_path / "codes")
    assert pairs.split("ababab-") == ("abab@@", "ab@@", "-")
    assert pairs.split("aaab-") == ("a@@", "a@@", "ab@@", "-")


def test_a_sentence_there(folder: Path) -> None:
    encoded = FairseqBpeTokenizer(folder).encode("The newer is lower.")
    names = [*SPECIALS, *SOURCE]
    assert [names[i] for i in encoded.ids] == ["The", "new@@", "er", "is", "lo@@", "w@@", "er", ".", "</s>"]
    assert encoded.unknowns == ()
    assert encoded.trailing == 0


def test_moses_marks(folder: Path) -> None:
    names = [*SPECIALS, *SOURCE]
    encoded = FairseqBpeTokenizer(folder).encode("the \u201clow\u201d is the-low")
    assert [names[i] for i in encoded.ids] == ["the", "&quot;", "low", "&quot;", "is", "the", "@-@", "low", "</s>"]


def test_a_sentence_back(folder: Path) -> None:
    tokenizer = FairseqBpeTokenizer(folder)
    names = [*SPECIALS, *TARGET]

    def text(*tokens: str, unknowns: tuple[str, ...] = (), trailing: int = 0) -> str:
        return tokenizer.decode(tuple(names.index(t) for t in tokens), unknowns, trailing)

    assert text("l&apos;", "homme", "nou@@", "veau", "est", "bas", ".", "</s>") == "l'homme nouveau est bas."
    assert text("le", "@-@", "bas") == "le-bas"
    assert text("le", "<unk>", "est", "<unk>", ".", unknowns=("Zoé",)) == "le Zoé est."
    assert text("le", "nou@@") == "le nou"
    assert text("est", unknowns=("X", "☃"), trailing=1) == "est ☃"
    assert text("est", "<unk>", unknowns=("☃",), trailing=1) == "est ☃"
    assert text() == ""


def test_unknown_pieces_keep_their_surfaces(folder: Path) -> None:
    encoded = FairseqBpeTokenizer(folder).encode("the ☃ is low é \U0001f600")
    assert encoded.unknowns == ("☃", "é", "\U0001f600")
    assert encoded.trailing == 2
    assert encoded.ids.count(3) == 3
    assert encoded.ids[-1] == 2


@pytest.mark.parametrize("text", ["", " ", "\x00", "\n\t"])
def test_nothing_is_only_the_end(folder: Path, text: str) -> None:
    encoded = FairseqBpeTokenizer(folder).encode(text)
    assert (encoded.ids, encoded.unknowns, encoded.trailing) == ((2,), (), 0)


def test_a_vocabulary_without_capitals_reads_lower_case(folder: Path) -> None:
    write(folder, [token for token in SOURCE if token != "The"], TARGET)
    assert FairseqBpeTokenizer(folder).encode("THE low").ids == FairseqBpeTokenizer(folder).encode("the low").ids
    write(folder, SOURCE, TARGET)
    assert FairseqBpeTokenizer(folder).encode("The").ids != FairseqBpeTokenizer(folder).encode("the").ids


def test_an_id_of_another_vocabulary(folder: Path) -> None:
    with pytest.raises(TokenizerError, match="has no token 99"):
        FairseqBpeTokenizer(folder).decode((4, 99), ())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocabulary.json", None, "cannot read .*vocabulary.json"),
        ("vocabulary.json", "{", "is not JSON"),
        ("vocabulary.json", "[]", "not a fairseq-bpe vocabulary"),
        ("vocabulary.json", '{"kind": "sentencepiece"}', "not a fairseq-bpe vocabulary"),
        ("vocabulary.json", '{"kind": "fairseq-bpe", "source": "a", "target": []}', "'source' must be a list"),
        ("vocabulary.json", '{"kind": "fairseq-bpe", "source": [], "target": [1]}', "'target' must be a list"),
        ("bpe.codes", None, "cannot read .*bpe.codes"),
        ("bpe.codes", "a b\n", "no subword-nmt codes file"),
        ("bpe.codes", "#version: 0.2\na b\na b c\n", "bpe.codes:3: expected two symbols"),
    ],
)
def test_damaged_files_are_named(folder: Path, name: str, content: str | None, message: str) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(TokenizerError, match=message):
        FairseqBpeTokenizer(folder)


def test_without_sacremoses_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(TokenizerError, match=r"pip install 'lite-export\[fairseq\]'"):
        FairseqBpeTokenizer(folder)
