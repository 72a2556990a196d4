"""Print which characters text is divided by, as this Python's Unicode has them: the body of a C++ list.

Each range is its first character and its kinds, ``Kind`` of src/unicode.h added up; it ends where the next one begins.
"""

from __future__ import annotations

import itertools
import sys


def kinds(character: str) -> int:
    """The sum of a character's kinds."""
    alphanumeric = character.isalnum()
    return sum(
        value
        for value, holds in (
            (1, character.isspace()),
            (2, alphanumeric),
            (4, alphanumeric and not character.isdecimal()),
            (8, character.isdigit()),
            (16, character.islower()),
            (32, character.isalpha() and character.isupper()),
        )
        if holds
    )


def main() -> None:
    """Print a line for each range."""
    for found, group in itertools.groupby(range(sys.maxunicode + 1), lambda code: kinds(chr(code))):
        print(f"{{{next(group):#x}, {found}}},")


if __name__ == "__main__":
    main()
