"""What the claims read from the results, by the names of models."""

from __future__ import annotations

from instructgpt.evaluation.results import Results, Table
from instructgpt.evaluation.statistics import Estimate

PANEL = "panel"  # the judge: labelers of the group that the reward model learned from

Model = str | None
"""A model by its name; None where none has the role."""


def percent(value: float) -> str:
    """A share as text.

    >>> percent(0.5764)
    '57.6 %'
    """
    return f"{100 * value:.1f} %"


def label(results: Results, model: Model) -> str:
    """How a model is called."""
    return results.labels.get(str(model), str(model))


def win(
    results: Results, model: Model, against: Model, judge: str = PANEL, decoding: str = "sampled"
) -> Estimate | None:
    """A win rate, if it was measured; from the other side where it was written so."""
    for row in results.win_rates:
        if (row.judge, row.decoding) != (judge, decoding):
            continue
        if (row.model, row.against) == (model, against):
            return row.estimate
        if (row.model, row.against) == (against, model):
            return Estimate(1 - row.value, 1 - row.high, 1 - row.low, row.n)
    return None


def difference(
    results: Results, measure: str, model: Model, against: Model, row_of_judge: bool = False
) -> Estimate | None:
    """Paired difference of a measure between two models, ``model`` minus ``against``.

    Read from the other side where it was written so.

    Args:
        results: with differences.
        measure: key of the differences.
        model: one.
        against: the other.
        row_of_judge: of win rates by the panel, sampled.
    """
    rows = results.differences.get(measure, [])
    if row_of_judge:
        rows = [row for row in rows if (row.judge, row.decoding) == (PANEL, "sampled")]
    for row in rows:
        if (row.model, row.against) == (model, against):
            return row.estimate
        if (row.model, row.against) == (against, model):
            return Estimate(-row.value, -row.high, -row.low, row.n)
    return None


def against_times(
    results: Results, measure: str, factor: float, model: Model, against: Model
) -> Estimate | None:
    """A model's rate minus so many times that of another."""
    rows = results.differences.get(f"{measure}_against_{factor}", [])
    found = (row.estimate for row in rows if (row.model, row.against) == (model, against))
    return next(found, None)


def rates(table: Table, key: str, *models: Model) -> list[float] | None:
    """The same rate of some models; None unless all are there."""
    found = [table.get(str(model), {}).get(key) for model in models]
    known = [one.value for one in found if one is not None]
    return known if len(known) == len(models) else None


def listed(results: Results, models: tuple[Model, ...], values: list[float]) -> str:
    """Models with their rates: ``GPT 20.0 %, PPO 40.0 %``."""
    pairs = zip(models, values, strict=True)
    return ", ".join(f"{label(results, model)} {percent(value)}" for model, value in pairs)
