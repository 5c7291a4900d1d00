"""Rows without some of their responses."""

from __future__ import annotations

from collections.abc import Sequence

from instructgpt.hygiene.clean_row import CleanRow


def without(row: CleanRow, bad: Sequence[bool]) -> CleanRow | None:
    """The row without its bad responses; None where too few are left for its kind.

    Ranks keep their order and go up to 1.

    Args:
        row: with responses.
        bad: one for each of them.
    """
    kept = [i for i, one in enumerate(bad) if not one]
    least = 2 if len(row.responses) > 1 else 1
    if len(kept) < least:
        return None
    ranks = [row.ranking[i] for i in kept] if row.ranking else []
    ranking = [1 + sum(other < rank for other in set(ranks)) for rank in ranks]
    meta = {
        key: [value[i] for i in kept] if _one_each(value, row) else value
        for key, value in row.meta.items()
    }
    ranking = row.ranking if len(row.responses) == 1 else ranking
    return row._replace(responses=[row.responses[i] for i in kept], ranking=ranking, meta=meta)


def _one_each(value: object, row: CleanRow) -> bool:
    """Whether metadata are a list about the responses, such as ratings."""
    return isinstance(value, list) and len(value) == len(row.responses) > 1
