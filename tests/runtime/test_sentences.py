"""Where sentences end, where they do not, and that no character is lost."""

from __future__ import annotations

from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_runtime.sentences import Segment, split_long, split_sentences
from lite_runtime.tokenizer import SentencePieceTokenizer


def joined(segments: list[Segment]) -> str:
    return "".join(s.text + s.after for s in segments)


@pytest.mark.parametrize(
    "sentences",
    [
        ["It rains.", "The sun is gone."],
        ["Really?!", "Yes!", "Well..."],
        ["Mr. and Mrs. Smith met Dr. J. R. Jones at St. Mary's.", "It was late."],
        ["It costs 3.50 dollars, e.g. in the U.S. Army shop.", "Cheap!"],
        ["See Fig. 3 and p. 12.", "No.", "That is wrong."],
        ["We met at 5 p.m. on Monday.", "They left at 6 a.m.", "Nobody saw it."],
        ["He said: “Stop!”", "Then he left."],
        ['"Stop!" he said.', '"Why?"', "(Nobody knew.)", "So it went."],
        ["Visit https://example.com/a.b?c=d.", "Or www.example.org."],
        ["Wait... what did you say?", "Wait…", "Nothing."],
        ["1. Open the box.", "2. Close it."],
        ["It was 1999.", "We were young."],
        ["Great!", "😀 Yes!", "¿Dónde está?", "- Here."],
        ["Apple Inc. announced it.", "3 people came."],
        ["Dots . . . and dots.", "End."],
    ],
)
def test_sentences_are_found(sentences: list[str]) -> None:
    text = " ".join(sentences)
    assert [s.text for s in split_sentences(text)] == sentences
    assert joined(split_sentences(text)) == text


def test_line_breaks_divide_and_stay_outside() -> None:
    text = "\n A heading\n\n  First line,\r\nsecond line. Third.\t\n"
    assert split_sentences(text) == [
        Segment("", "\n "),
        Segment("A heading", "\n\n  "),
        Segment("First line,", "\r\n"),
        Segment("second line.", " "),
        Segment("Third.", "\t\n"),
    ]


@pytest.mark.parametrize(("text", "segments"), [("", []), (" \n", [Segment("", " \n")]), ("a", [Segment("a", "")])])
def test_next_to_nothing_is_fine(text: str, segments: list[Segment]) -> None:
    assert split_sentences(text) == segments


prose = st.text(st.sampled_from("aB1.!?,;:'\")( \n\t\u00a0😀漢é"), max_size=40) | st.text(max_size=40)


@settings(deadline=None, max_examples=50)
@given(text=prose, limit=st.integers(1, 12))
def test_no_character_is_ever_lost(text: str, limit: int) -> None:
    sentences = split_sentences(text)
    assert joined(sentences) == text
    parts = [part for sentence in sentences for part in split_long(sentence, limit, len)]
    assert joined(parts) == text
    assert all(len(part.text) <= limit for part in parts)
    assert all(part.text == part.text.strip() and part.text for part in parts[1:])
    assert all(part.after == "" or part.after.isspace() for part in parts)


def words(text: str) -> int:
    return len(text.split())


def test_long_sentences_are_cut_at_clauses_then_at_spaces_then_anywhere() -> None:
    clause = Segment("one two three four, five six seven eight nine", "\n")
    assert split_long(clause, 6, words) == [
        Segment("one two three four,", " "),
        Segment("five six seven eight nine", "\n"),
    ]
    # A comma in the first half would leave a stump.
    assert split_long(Segment("one, two three four five six", ""), 5, words)[0].text == "one, two three four five"
    assert split_long(Segment("abcdefgh", " "), 3, len) == [Segment("abc", ""), Segment("def", ""), Segment("gh", " ")]
    assert split_long(Segment("short", ""), 10, len) == [Segment("short", "")]


@pytest.mark.parametrize(
    "unit", ["word ", "word, ", "antidisestablishmentarianism", "漢", "😀 ", ".", "a.", "Hi. ", "! "]
)
def test_ten_thousand_characters_fit_the_model(tokenizer: SentencePieceTokenizer, unit: str) -> None:
    text = (unit * 10_000)[:10_000]

    def count(part: str) -> int:
        return len(tokenizer.encode(part).ids)

    start = perf_counter()
    parts = [part for sentence in split_sentences(text) for part in split_long(sentence, 256, count)]
    assert joined(parts) == text
    assert max(count(part.text) for part in parts) <= 256
    assert perf_counter() - start < 5, "splitting must stay linear"
