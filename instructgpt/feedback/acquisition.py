"""Which prompts are worth a person's time: chosen by what reward models say of their responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from instructgpt.feedback.acquire import Acquire, By
from instructgpt.seeds import permutation
from instructgpt.types import require

Array = NDArray[np.float64]


def check_acquire(how: Acquire) -> None:
    """Refuse options that do not go together."""
    given = how.rows is not None
    require(how.rows is None or how.rows >= 1, "--choose.rows", ">= 1", how.rows)
    require(given or how.by == "random", "--choose.by", "left out without --choose.rows", how.by)
    alone = how.against is None or how.by == "disagreement"
    require(alone, "--choose.against", "left out unless by disagreement", how.against)


class Acquired(NamedTuple):
    """A row that was chosen, and why."""

    number: int
    value: float  # NaN: at random


def worth(said: Array, by: By) -> float:
    """How much there is to learn from a ranking of responses.

    Args:
        said: [K, H] what each head says of each response; the zero of a head plays no part.
        by: closeness: minus the mean difference of two responses by the mean of the heads;
            disagreement: the mean standard deviation over the heads of such a difference.

    Examples:
        >>> said = np.array([[1.0, 3.0], [0.0, 0.0]])  # differences of 1 and 3
        >>> worth(said, "closeness"), worth(said, "disagreement")
        (-2.0, 1.0)
    """
    first, second = np.triu_indices(len(said), 1)
    margins = said[first] - said[second]
    if by == "closeness":
        return -float(np.abs(margins.mean(1)).mean())
    return float(margins.std(1).mean())


def standardised(models: Sequence[Sequence[Array]]) -> list[Array]:
    """What several models say, each on the same scale, as if they were heads of one.

    Args:
        models: scores [K] by each of the responses of every row.

    Returns:
        [K, H] of every row.
    """
    columns = []
    for rows in models:
        every = np.concatenate(rows)
        scale = float(every.std()) or 1.0
        columns.append([(one - every.mean()) / scale for one in rows])
    return [np.stack(row, 1) for row in zip(*columns, strict=True)]


def acquire(said: Sequence[Array] | None, count: int, how: Acquire, seed: int) -> list[Acquired]:
    """The rows that are chosen, those that are worth most first.

    Args:
        said: [K, H] of every row; None: at random.
        count: of rows.
        how: to choose.
        seed: of random rows.
    """
    most = min(count, how.rows or count)
    if said is None:
        return [Acquired(int(i), float("nan")) for i in permutation(count, seed)[:most]]
    values = [worth(one, how.by) for one in said]
    order = sorted(range(count), key=lambda i: (-values[i], i))
    return [Acquired(i, values[i]) for i in order[:most]]
