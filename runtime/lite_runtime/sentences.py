"""A paragraph into sentences, and sentences too long for the model into parts; nothing is ever lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

# Never end a sentence: something always follows them.
# fmt: off
_TITLES = frozenset((
    "mr", "mrs", "ms", "dr", "prof", "rev", "hon", "st", "mt", "gen", "col", "maj", "capt", "lt", "sgt",
    "sen", "rep", "gov", "pres", "supt", "messrs", "mme", "mlle", "vs", "cf", "viz", "ca", "approx", "esp",
    "dept", "est",
))
# Abbreviations only before a number ("No. 5"), words otherwise ("No. Never.").
_NUMBERED = frozenset((
    "no", "nos", "p", "pp", "vol", "fig", "figs", "art", "sec", "ch", "par", "op", "eq",
))
# fmt: on
# Dotted abbreviations that do end a sentence when a capital follows.
_TIMES = frozenset(("a.m", "p.m"))
_OPENERS = "\"'“‘«‹([{¿¡-–—*"
_CLOSERS = "\"'”’»›)]}*"
_ENDS = ".!?…"
_ACRONYM = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_CLAUSE = ",;:)—–"
_BREAKS = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")


@dataclass(frozen=True)
class Segment:
    """A stretch of text without white space at its ends, and the white space after it."""

    text: str
    after: str


def split_sentences(text: str) -> list[Segment]:
    """The sentences of ``text``. Joined again, each with its ``after``, they are ``text`` exactly.

    A line break always divides. White space at the very start is a first segment with an empty text.
    """
    parts = re.split(r"(\s+)", text)
    segments: list[Segment] = []
    current: list[str] = []
    for word, gap, following in zip(parts[::2], [*parts[1::2], ""], [*parts[2::2], ""], strict=True):
        current.append(word)
        if _is_boundary(word, gap, following, first=len(current) == 1):
            segments.append(Segment("".join(current), gap))
            current = []
        else:
            current.append(gap)
    if rest := "".join(current):
        segments.append(Segment(rest, ""))
    return segments


def _is_boundary(word: str, gap: str, following: str, *, first: bool) -> bool:
    if not word or not following or not _BREAKS.isdisjoint(gap):
        return bool(gap)
    bare = word.rstrip(_CLOSERS)
    stem = bare.rstrip(_ENDS)
    ending = bare[len(stem) :]
    start = following.lstrip(_OPENERS)[:1]
    if not ending or start.islower() or (start and start in _ENDS + ",;:"):
        return False
    return ending != "." or _ends_at_dot(stem.lstrip(_OPENERS), start, first=first)


def _ends_at_dot(stem: str, start: str, *, first: bool) -> bool:
    """Whether a single full stop after the word ``stem`` ends the sentence; ``start`` is what comes next."""
    lowered = stem.lower()
    if first and (stem.isdigit() or len(stem) == 1):
        return False  # "1. Open the box."
    if lowered in _NUMBERED:
        return not start.isdigit()
    if lowered in _TITLES:
        return False
    if len(stem) == 1 and stem.isalpha() and stem.isupper():
        return False  # "J. Smith"
    return lowered in _TIMES or not _ACRONYM.fullmatch(stem)


def split_long(segment: Segment, limit: int, count: Callable[[str], int]) -> list[Segment]:
    """Cut ``segment`` into parts of at most ``limit`` tokens, at clauses, else at spaces, else anywhere.

    Args:
        limit: the most tokens a part may have; a single character is never cut, whatever it counts.
        count: tokens of a text.

    Returns:
        parts that, joined with their ``after``, are the segment exactly.
    """
    parts = []
    text = segment.text
    while len(text) > (fits := _fitting(text, limit, count)):
        cut = _cut(text, fits)
        rest = text[cut:].lstrip()
        parts.append(Segment(text[:cut], text[cut : len(text) - len(rest)]))
        text = rest
    return [*parts, Segment(text, segment.after)]


def _fitting(text: str, limit: int, count: Callable[[str], int]) -> int:
    """Length of a long prefix of at most ``limit`` tokens: found by doubling, then by halving the doubt."""
    low, high = 1, min(max(limit, 1), len(text))
    while high < len(text) and count(text[:high]) <= limit:
        low, high = high, min(2 * high, len(text))
    if count(text[:high]) <= limit:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(text[:middle]) <= limit else (low, middle)
    return low


def _cut(text: str, fits: int) -> int:
    """The best place to cut within the first ``fits`` characters."""
    spaces = [m.start() for m in re.finditer(r"\s+", text[: fits + 1]) if m.start()]
    # A clause that ends in the first half would leave a part too short to translate well.
    clauses = [place for place in spaces if place > fits // 2 and text[place - 1] in _CLAUSE]
    return max(clauses or spaces or [fits])
