"""What several heads of a reward model can say into one score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Combine = Literal["mean", "min", "mean_minus_std"]
COMBINE = f"one of {', '.join(get_args(Combine))}"


@dataclass(frozen=True)
class Combined:
    """How several heads of a reward model become one score.

    Args:
        combine: their mean, the lowest (min), or their mean minus ``std_coef`` times their standard
            deviation (mean_minus_std).
        std_coef: how much the heads' disagreement costs with mean_minus_std.
    """

    combine: Combine = "mean"
    std_coef: float = 1.0
