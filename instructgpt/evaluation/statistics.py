"""Intervals for what is estimated from a sample."""

from __future__ import annotations


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
    return (middle - spread) / scale, (middle + spread) / scale
