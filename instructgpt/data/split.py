"""Which rows are held out: a function of the seed and of what names a row, never of its place."""

from __future__ import annotations

import numpy as np

from instructgpt.data.summary import Summary
from instructgpt.data.views import Picked, all_numbers
from instructgpt.seeds import mix
from instructgpt.types import UserError


def places(names: np.ndarray, seed: int) -> np.ndarray:
    """Hash names to places, spread evenly over [0, 2^64); another seed gives other places.

    Args:
        names: of rows, uint64.
        seed: of the hash.

    Returns:
        uint64.
    """
    z = names.astype(np.uint64) ^ np.uint64(mix(seed))  # splitmix64 (Steele et al. 2014)
    z += np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def bound_of(fraction: float) -> int:
    """The place below which lies such a fraction of all names."""
    return min(int(fraction * 2**64), 2**64 - 1)


def hold_out(names: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose rows for validation by the hash of their names; equal names stay together.

    Args:
        names: of each row, such as a hash of its user or of its prompt, uint64.
        fraction: of the names to hold out, in (0, 1); at least one, where there are two.
        seed: of the hash.

    Returns:
        For each row whether it is held out.
    """
    found = places(names, seed)
    chosen = found < np.uint64(bound_of(fraction))
    if len(names) and not chosen.any() and found.min() < found.max():
        chosen = found == found.min()
    return chosen


def among(some: np.ndarray, many: np.ndarray) -> np.ndarray:
    """Which of some numbers are among many others.

    ``numpy.isin`` finds the distinct ones of the many first: seconds for millions.

    >>> among(np.array([5, 1, 5, 3]), np.array([2, 5, 1, 9])).tolist()
    [True, True, True, False]
    """
    distinct = np.unique(some)
    if not len(distinct):
        return np.zeros(0, bool)
    near = np.searchsorted(distinct, many).clip(max=len(distinct) - 1)
    return np.isin(some, distinct[np.unique(near[distinct[near] == many])])


def split_rows(
    sets: list[Picked], fraction: float, seed: int, summary: Summary, what: str
) -> tuple[list[Picked], list[Picked]]:
    """Hold rows out by a hash of the user, else of the prompt or of the text.

    A prompt that several users gave may fall on both sides; then its validation rows are left
    out, so that neither a user nor a prompt is in two splits.

    Args:
        sets: rows to train on.
        fraction: of the users or prompts to hold out.
        seed: of the hash.
        summary: to tell.
        what: the rows are, for messages.

    Returns:
        The sets without the rows held out, and these rows.
    """
    chosen = hold_out(all_numbers("party", sets), fraction, seed)
    masks = np.split(chosen, np.cumsum([len(rows.rows) for rows in sets])[:-1])
    rest = [rows.where(~out) for rows, out in zip(sets, masks, strict=True)]
    total, trained = len(chosen), all_numbers("key", rest)
    if total and not len(trained):
        rule = f"must leave {what} to train on"
        raise UserError(f"--data.validation {rule}, got {fraction} of {total:,} rows")
    held = []
    for rows, out in zip(sets, masks, strict=True):
        picked = rows.where(out)
        known = among(picked.numbers("key"), trained)
        for row in picked.where(known).rows.tolist():
            reason = "validation row with a prompt that is trained on"
            summary.drop(reason, rows.store.text("where", row))
        held.append(picked.where(~known))
    count = sum(len(rows.rows) for rows in held)
    summary.note(
        f"validation: {count:,} of {total:,} rows, by a hash of user, else prompt"
        + ("" if chosen.any() else " (all rows share one user or prompt)")
    )
    return rest, held
