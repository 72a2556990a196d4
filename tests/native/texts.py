"""Texts for the native runner: real ones, odd ones, and noise from every corner of Unicode."""

from __future__ import annotations

import random

from lite_export.loading import shipped_model
from lite_runtime import sentences as python_s

# Each is one text; what each is about is in it.
ODD = (
    "",
    "   ",
    "\n\n \t",
    "  white space  at the ends \n",
    "One.  Two!\tThree?\r\nFour\u2028Five\x85Six",
    "…",
    "— - —",
    "🙂",
    "I am happy 🙂",
    "I am happy 🙂 🙂 👩‍👩‍👧",
    "🙂 He is happy. 👍🏽",
    "a\x00b\x01c\x1bd\x7fe\x9ff\x0bg\x1ch",
    "\x00\x01",
    "\u200b\u200d\ufeff",
    "He said: “It’s ‘fine’.” Then he left.",
    "a\u00a0b\u202fc\u00add\u2007e\u3000f",
    "cafe\u0301 naïve Œuvre ﬁn Ｆｕｌｌ ① ½ Ⅷ",
    "日本語の文章です。これは二つ目です。",
    "שלום עולם. مرحبا بالعالم!",
    "K\u212a \u0130stanbul STRASSE ß ŉ",
    "\U0010ffff \ue000 \ufffd \uffff",
    "▁ ▁▁ <s> </s> <unk> <pad> <0x41> ⁇",
    "Mr. Smith met Dr. J. Brown at 5 p.m. He was late.",
    "It was 9 p.m. on Monday. See fig. 5 and no. 7. No. Never.",
    "1. Open the box. 2. Close it. a. Yes. ٣. Three.",
    'The U.S. economy grew. The U.S.A. did... "Really?" (Yes.) ok.',
    "Wait ... what?! No!! ¿Qué? ¡Sí! and so on. .5 is half. ,x",
    "No. ² is 2. No. five.",
    "É. A. É. Z. Зима. Ж. Да.",
    "word " * 300,
    "clause, " * 120 + "end.",
    "nospaceatall" * 200,
    "日本語" * 300,
    "🙂" * 400,
    "x" + " " * 500 + "y",
)

_ALPHABETS = (
    "abcXYZ019",
    " .!?…,;:-–—'\"“”«»()[]{}*",
    " \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u2003\u2028",
    "éÉßŉİıÅøЖжΩωאبअ日本①²½Ⅷªǅʰ٣߁",
    "\u0301\u200d\u00ad🙂👍🏽\ufe0f\u2581\x00\x7f\x90",
)


def abbreviations() -> list[str]:
    """Every word that Python knows to end no sentence, or not before a number."""
    words = sorted(python_s._TITLES | python_s._NUMBERED | python_s._TIMES)
    return [f"I saw {word}. Then 5 {word.upper()}. 6 of {word}. 7." for word in words]


def sentences() -> list[str]:
    """The English side of the shipped model's test set."""
    lines = (shipped_model() / "test.tsv").read_text("utf8").splitlines()
    return [line.split("\t")[0] for line in lines]


def noise(count: int) -> list[str]:
    """Short texts of characters that divide, join and vanish, and of any others there are."""
    source = random.Random(1)
    return ["".join(_character(source) for _ in range(source.randrange(1, 30))) for _ in range(count)]


def _character(source: random.Random) -> str:
    if source.random() < 0.1:
        # Lone surrogates are no text: JSON cannot carry them.
        return chr(source.choice((source.randrange(0xD800), source.randrange(0xE000, 0x110000))))
    return source.choice(source.choice(_ALPHABETS))
