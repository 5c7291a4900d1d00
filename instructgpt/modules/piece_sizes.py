"""How large forward passes get, from the lengths of rows: what memory is planned by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from instructgpt.functional.layout import pieces

LOOKED_AT = 1000
"""Batches of an epoch whose forward passes are looked at."""


class Size(NamedTuple):
    """Of a row, or of all rows of a forward pass."""

    tokens: int  # that are computed
    attended: int  # of every sequence, a prompt that several share in each
    longest: int  # sequence
    predicted: int  # tokens whose probability is asked for

    @classmethod
    def document(cls, tokens: int, predicted: int) -> Size:
        """Text that is one sequence.

        Args:
            tokens: of it.
            predicted: those of them that are trained.
        """
        return cls(tokens, tokens, tokens, predicted)

    @classmethod
    def shared(cls, prompt: int, responses: Sequence[int]) -> Size:
        """A prompt before each of its responses.

        Args:
            prompt: tokens of it.
            responses: tokens of each.

        Examples:
            >>> Size.shared(3, [1, 2])
            Size(tokens=6, attended=9, longest=5, predicted=3)
        """
        answers = sum(responses)
        attended = prompt * len(responses) + answers
        return cls(prompt + answers, attended, prompt + max(responses), answers)


class Largest(NamedTuple):
    """What the forward passes of an epoch come to."""

    piece: Size  # the most that one has of each
    several: bool  # whether a batch has more than one


def largest_piece(
    batches: Iterable[Sequence[Size]], max_tokens: int | None, max_rows: int | None = None
) -> Largest:
    """The most that a forward pass has.

    Args:
        batches: sizes of their rows.
        max_tokens: of a forward pass, unless a row has more; None: no limit.
        max_rows: of a forward pass; None: no limit.

    Examples:
        >>> rows = [Size.document(4, 1), Size.document(2, 2), Size.document(7, 0)]
        >>> largest_piece([rows], 6).piece
        Size(tokens=7, attended=7, longest=7, predicted=3)
    """
    most, several = Size(0, 0, 0, 0), False
    for rows in islice(batches, LOOKED_AT):
        parts = pieces([row.tokens for row in rows], max_tokens, max_rows)
        several |= len(parts) > 1
        for part in parts:
            tokens, attended, longest, predicted = zip(*rows[part.start : part.stop], strict=True)
            found = (sum(tokens), sum(attended), max(longest), sum(predicted))
            most = Size(*map(max, most, found))
    return Largest(most, several)
