"""Tokens of the world and how they are written: words between single spaces, and line ends."""

from __future__ import annotations

import re
from collections.abc import Iterable

NEWLINE = "\n"
CAPITALS = "^"  # what follows it on a line is written in capital letters

_AROUND_NEWLINES = re.compile(" ?\n ?")


def to_text(tokens: Iterable[str]) -> str:
    r"""Write tokens as text.

    >>> to_text(["who", "?", "\n", "a", ":"])
    'who ?\na :'
    """
    return _AROUND_NEWLINES.sub("\n", " ".join(tokens))


def to_tokens(text: str) -> list[str]:
    r"""Read tokens from text, whatever its spaces: the inverse of ``to_text``.

    >>> to_tokens("who ?\na :")
    ['who', '?', '\n', 'a', ':']
    """
    return [token for token in text.replace("\n", " \n ").split(" ") if token]


def in_capitals(tokens: Iterable[str]) -> list[str]:
    """Put the sign for capital letters in front of a line."""
    return [CAPITALS, *tokens]


def enumeration(words: Iterable[str]) -> list[str]:
    """List words: a, b, c and a full stop."""
    tokens = [token for word in words for token in (",", word)]
    return [*tokens[1:], "."]
