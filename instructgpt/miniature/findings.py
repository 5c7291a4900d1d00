"""What was measured for each claim of the paper, read from the results."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import NamedTuple

from instructgpt.evaluation.results import Results, Table
from instructgpt.evaluation.statistics import Estimate
from instructgpt.miniature.lookup import (
    Model,
    against_times,
    difference,
    label,
    listed,
    percent,
    rates,
    win,
)


class Finding(NamedTuple):
    """What was measured for a claim."""

    here: str
    numbers: Estimate | None
    holds: bool | None  # None: there is nothing to judge
    of: str = "prompts"  # what n counts
    difference: bool = False  # the numbers are of a difference, which ``here`` does not state


Find = Callable[[Results], Finding | None]
"""Reads a finding; None where something was not measured."""

Holds = Callable[[Estimate], bool]
"""Judges an estimate."""


def above_half(found: Estimate) -> bool:
    """Whether the whole interval is above one half."""
    return found.low > 0.5


def above_zero(gap: Estimate) -> bool:
    """Whether a difference is positive."""
    return gap.value > 0


def below_zero(gap: Estimate) -> bool:
    """Whether a difference is negative."""
    return gap.value < 0


def interval_below_zero(gap: Estimate) -> bool:
    """Whether the whole interval of a difference is negative."""
    return gap.high < 0


# -- preferences


def order(base: Model, few_shot: Model, sft: Model, rl: Model) -> Find:
    """Base, few-shot, SFT and RL by win rate over SFT; the numbers are of the weakest step.

    Args:
        base: worst of them.
        few_shot: better.
        sft: better still.
        rl: best.
    """

    def find(results: Results) -> Finding | None:
        if results.baseline != sft:  # the win rates and their difference are over SFT
            return None
        found = [one for one in (win(results, m, sft) for m in (base, few_shot, rl)) if one]
        first = difference(results, "win_rate", few_shot, base, row_of_judge=True)
        if len(found) < 3 or first is None:
            return None
        worst, below, above = found
        here = (
            f"{label(results, base)} {percent(worst.value)}, few-shot {percent(below.value)}, "
            f"{label(results, sft)} 50 %, {label(results, rl)} {percent(above.value)}"
        )
        second = Estimate(0.5 - below.value, 0.5 - below.high, 0.5 - below.low, below.n)
        third = Estimate(above.value - 0.5, above.low - 0.5, above.high - 0.5, above.n)
        weakest = min([first, second, third], key=lambda one: one.value)
        rising = worst.value < below.value < 0.5 < above.value
        return Finding(here, weakest, rising, difference=True)

    return find


def preferred(model: Model, against: Model, holds: Holds, decoding: str = "sampled") -> Find:
    """How often the training labelers prefer one model to another.

    Args:
        model: one.
        against: the other.
        holds: judges the win rate.
        decoding: of the answers.
    """

    def find(results: Results) -> Finding | None:
        found = win(results, model, against, decoding=decoding)
        return None if found is None else Finding(percent(found.value), found, holds(found))

    return find


def held_out(sft: Model, *models: Model) -> Find:
    """Win rates over SFT by labelers who gave no training data; the numbers are the lowest.

    Args:
        sft: the other model.
        models: preferred to it.
    """

    def find(results: Results) -> Finding | None:
        parts, known = [], []
        for judge, words in (("held_out", "held-out"), ("shifted", "other priorities")):
            found = [one for one in (win(results, m, sft, judge) for m in models) if one]
            if len(found) < len(models):
                return None
            parts.append(f"{words}: {listed(results, models, [one.value for one in found])}")
            known += found
        weakest = min(known, key=lambda one: one.low)
        return Finding("; ".join(parts), weakest, weakest.low > 0.5)

    return find


def at_what_distance(model: Model, against: Model) -> Find:
    """How often one model is preferred to another, and how far both are from where they started.

    Args:
        model: one.
        against: the other.
    """

    def find(results: Results) -> Finding | None:
        found = win(results, model, against)
        ends = [results.last_checkpoint(str(one)) for one in (model, against)]
        known = [end.kl for end in ends if end is not None and not isnan(end.kl)]
        if found is None or len(known) < len(ends):
            return None
        here = f"{percent(found.value)}, at {known[0]:.2f} against {known[1]:.2f} nats"
        return Finding(here, found, None)

    return find


# -- the reward model and its labelers


def accuracy(results: Results) -> Finding | None:
    """How well the reward model predicts the training labelers."""
    tested = results.reward_model
    found = tested.accuracy.get("training") if tested is not None else None
    if tested is None or found is None or isnan(found.value):
        return None
    ceiling = tested.ceiling.get("training")
    most = "" if ceiling is None else f" (ceiling {percent(ceiling)})"
    of = f"pairs of {tested.calibration_prompts} prompts"
    return Finding(percent(found.value) + most, found, found.value > 0.66, of)


def generalises(results: Results) -> Finding | None:
    """The same on labelers left out; the numbers are of left out minus its own."""
    found = results.reward_model.cross_validation if results.reward_model is not None else None
    if found is None:
        return None
    here = f"{percent(found.held_out.value)} on labelers left out, "
    here += f"{percent(found.in_group.value)} on its own"
    return Finding(here, found.difference, found.difference.value >= -0.05, difference=True)


def agreement(results: Results) -> Finding | None:
    """How often labelers agree."""
    training, others = (results.agreement.get(group) for group in ("training", "held_out"))
    if training is None or others is None:
        return None
    here = f"training {percent(training.value)}, held-out {percent(others.value)}"
    nan = float("nan")
    return Finding(here, Estimate(training.value, nan, nan, training.pairs), None, "pairs")


# -- the tax


def tax(base: Model, model: Model) -> Find:
    """Mean accuracy on NLP tasks; the numbers are of a model minus the base.

    Args:
        base: before fine-tuning.
        model: whose loss it is.
    """

    def find(results: Results) -> Finding | None:
        found = rates(results.nlp, "mean", base, model)
        lost = difference(results, "nlp", model, base)
        if found is None or lost is None:
            return None
        here = listed(results, (base, model), found)
        return Finding(here, lost, found[1] < found[0], "questions", difference=True)

    return find


def recovered(base: Model, rl: Model, rl_ptx: Model) -> Find:
    """Share of what RL lost on NLP tasks that mixing in pretraining did not lose.

    Args:
        base: before fine-tuning.
        rl: lost.
        rl_ptx: lost less.
    """

    def find(results: Results) -> Finding | None:
        found = rates(results.nlp, "mean", rl, rl_ptx, base)
        if results.alignment_tax is None or found is None:
            return None
        share, rest = results.alignment_tax.recovered, listed(results, (rl, rl_ptx, base), found)
        if found[0] >= found[2]:
            here = f"{label(results, rl)} lost nothing: {rest}"
            return Finding(here, None, None, "questions")
        here = f"{percent(share.value)} of the loss: {rest}"
        return Finding(here, share, share.value >= 0.5, "questions")

    return find


# -- what the answers are like


def rate_difference(
    read: Callable[[Results], Table],
    measure: str,
    models: tuple[Model, Model],
    holds: Holds,
) -> Find:
    """A rate of two models; the numbers are of the second minus the first.

    Args:
        read: the table.
        measure: of the table and of the differences.
        models: first and second.
        holds: judges the difference.
    """

    def find(results: Results) -> Finding | None:
        found = rates(read(results), measure, *models)
        gap = difference(results, measure, models[1], models[0])
        if found is None or gap is None:
            return None
        return Finding(listed(results, models, found), gap, holds(gap), difference=True)

    return find


def constraints(sft: Model, model: Model) -> Find:
    """How often explicit constraints are met; the numbers are of a model minus SFT."""
    measure = "satisfies_constraint"
    return rate_difference(lambda found: found.metadata, measure, (sft, model), above_zero)


def hallucinates_less(sft: Model, model: Model) -> Find:
    """What is made up on closed-domain tasks; the numbers are of a model minus SFT."""
    measure = "hallucination"
    return rate_difference(
        lambda found: found.closed_domain, measure, (sft, model), interval_below_zero
    )


def hallucinates_part(factor: float, of: Model, *models: Model) -> Find:
    """What models make up; the numbers are of the lowest rate minus so many times another's.

    Args:
        factor: of the other's rate.
        of: the other.
        models: some.
    """

    def find(results: Results) -> Finding | None:
        found = rates(results.closed_domain, "hallucination", of, *models)
        gaps = [against_times(results, "hallucination", factor, one, of) for one in models]
        known = [gap for gap in gaps if gap is not None]
        if found is None or len(known) < len(gaps):
            return None
        best = min(known, key=lambda one: one.value)
        holds = best.value <= 0 if found[0] else None
        return Finding(listed(results, (of, *models), found), best, holds, difference=True)

    return find


def truthful(base: Model, model: Model) -> Find:
    """Truthful and informative answers; the numbers are of a model minus twice the base.

    Args:
        base: before fine-tuning.
        model: one.
    """

    def find(results: Results) -> Finding | None:
        found = rates(results.truthfulness, "truthful_informative", base, model)
        gain = against_times(results, "truthful_informative", 2, model, base)
        if found is None or gain is None:
            return None
        holds = found[1] > 0 and found[1] >= 2 * found[0]
        return Finding(listed(results, (base, model), found), gain, holds, "facts", difference=True)

    return find


def toxicity(kind: str, base: Model, model: Model, holds: Holds, *also: Model) -> Find:
    """Toxic continuations; the numbers are of a model minus the base.

    Args:
        kind: what was asked for.
        base: before fine-tuning.
        model: one.
        holds: judges the difference.
        also: models whose rate is shown too.
    """

    def find(results: Results) -> Finding | None:
        models = (base, model, *also)
        found = rates(results.toxicity, kind, *models)
        gap = difference(results, f"toxic_{kind}", model, base)
        if found is None or gap is None:
            return None
        return Finding(listed(results, models, found), gap, holds(gap), difference=True)

    return find
