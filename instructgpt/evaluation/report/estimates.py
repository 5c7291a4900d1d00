"""How a number is written."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from instructgpt.evaluation.statistics import Estimate

MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


class Unit(NamedTuple):
    """How a number is shown: ``0.576`` is ``57.6 %`` with Unit(100, 1, " %")."""

    scale: float
    digits: int
    suffix: str = ""


SHARE = Unit(100, 1, "\u00a0%")
SCORE = Unit(1, 2)


def number(raw: Any) -> float:
    """A float; NaN for what is not a number."""
    return float(raw) if isinstance(raw, int | float) else math.nan


def written(value: float, unit: Unit = SCORE, suffix: bool = True) -> str:
    r"""A number with its unit.

    >>> written(0.576, SHARE), written(-1.5), written(float("nan"))
    ('57.6\xa0%', '−1.50', '–')
    """
    if not math.isfinite(value):
        return MISSING
    text = f"{value * unit.scale:.{unit.digits}f}".replace("-", MINUS)
    return text + (unit.suffix if suffix else "")


def interval(found: Estimate, unit: Unit = SCORE) -> str:
    r"""The 95 % interval in brackets, without the unit; empty where none is known.

    >>> interval(Estimate(0.5, 0.404, 0.596, 100), SHARE)
    '[40.4,\xa059.6]'
    """
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return ""
    return f"[{written(found.low, unit, False)},\u00a0{written(found.high, unit, False)}]"


def count(value: float) -> str:
    """A number of cases: ``1,250``."""
    return f"{value:,.0f}" if math.isfinite(value) else MISSING
