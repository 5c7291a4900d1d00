"""Trained policies side by side: preference, true utility, and how far each has gone."""

from __future__ import annotations

from typing import NamedTuple

from instructgpt.evaluation.results import Checkpoint, Results
from instructgpt.evaluation.statistics import Estimate

DECODING = "sampled"


class Arm(NamedTuple):
    """A model whose run is among the checkpoints."""

    model: str
    win_rate: Estimate | None  # over the baseline, by the first judge
    utility: Estimate | None
    end: Checkpoint  # its last validation


def arms(results: Results) -> list[Arm]:
    """Every model whose checkpoints are known, in the order of the results.

    Args:
        results: of the evaluation.
    """
    judge = next(iter(results.judges), None)
    won = {
        row.model: row.estimate
        for row in results.over_baseline
        if (row.judge, row.decoding) == (judge, DECODING)
    }
    useful = results.utility.get(DECODING, {})
    known = results.over_optimisation.checkpoints if results.over_optimisation else {}
    names = [one for one in results.models if one in known]
    names += [one for one in known if one not in names]  # in training only
    return [Arm(one, won.get(one), useful.get(one), known[one][-1]) for one in names if known[one]]
