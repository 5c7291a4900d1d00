"""How sure a mean over a sample is: its 95 % interval, and over how many items."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Interval(NamedTuple):
    """A 95 % interval of an estimate, and over how many independent items it is one."""

    low: float
    high: float
    n: int


def share_interval(share: float, count: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share; 95 % by default.

    Args:
        share: observed, between 0 and 1.
        count: how many it is a share of.
        z: quantile of the normal distribution.

    Example:
        >>> [round(bound, 3) for bound in share_interval(0.5, 100)]
        [0.404, 0.596]
    """
    count = max(count, 1.0)
    middle = share + z * z / (2 * count)
    spread = z * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    scale = 1 + z * z / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def ratio_interval(totals: Tensor, counts: Tensor, share: bool = False) -> Interval | None:
    """The interval of Σ totals / Σ counts, where what belongs to one item is not independent.

    Such as all pairs of a prompt, or all tokens of a text: only items are (linearisation of a
    ratio estimator; Cochran, Sampling Techniques, 6.3). A share has Wilson's interval over as many
    independent cases as have the same variance, so that it stays within 0 and 1.

    Args:
        totals: [n] of each item.
        counts: [n] that these are sums over; items without any play no part.
        share: the ratio is a share of the counts.

    Returns:
        None for less than two items.

    Examples:
        >>> import torch
        >>> wins, ones = torch.tensor([1.0, 0.0] * 50), torch.ones(100)
        >>> [round(bound, 3) for bound in ratio_interval(wins, ones, share=True)]
        [0.404, 0.596, 100]
        >>> [round(bound, 3) for bound in ratio_interval(wins * 10, ones * 10, share=True)]
        [0.404, 0.596, 100]
    """
    known = counts > 0
    totals, counts = totals[known].double(), counts[known].double()
    n = len(counts)
    if n < 2:
        return None
    ratio = float(totals.sum() / counts.sum())
    variance = float(((totals - ratio * counts) ** 2).sum() / counts.sum() ** 2)
    if share:
        same = ratio * (1 - ratio) / variance if variance > 0 else n
        # Few items may agree by chance: they say no more than that many independent cases.
        return Interval(*share_interval(ratio, min(same, float(counts.sum()))), n)
    spread = 1.96 * (variance * n / (n - 1)) ** 0.5
    return Interval(ratio - spread, ratio + spread, n)
