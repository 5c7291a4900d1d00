"""What was measured for each claim of the paper, read from the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

Results = Mapping[str, Any]
Numbers = Mapping[str, Any]  # value, low, high, n

PANEL = "panel"  # the judge: labelers of the group that the reward model learned from
NOTHING: Numbers = {"value": None, "low": None, "high": None, "n": None}


class Finding(NamedTuple):
    """What was measured for a claim."""

    here: str
    numbers: Numbers
    holds: bool | None  # None: there is nothing to judge
    of: str = "prompts"  # what n counts
    difference: bool = False  # the numbers are of a difference, which ``here`` does not state


Find = Callable[[Results], Finding | None]
"""Reads a finding; None where something was not measured."""


# -- reading the results


def percent(value: float) -> str:
    """A share as text.

    >>> percent(0.5764)
    '57.6 %'
    """
    return f"{100 * value:.1f} %"


def win(
    results: Results, model: str, against: str, judge: str = PANEL, decoding: str = "sampled"
) -> Numbers | None:
    """A win rate, if it was measured; from the other side where it was written so."""
    for row in results.get("win_rates", []):
        if (row["judge"], row["decoding"]) != (judge, decoding):
            continue
        if (row["model"], row["against"]) == (model, against):
            return cast(Numbers, row)
        if (row["model"], row["against"]) == (against, model):
            turned = {"value": "value", "low": "high", "high": "low"}
            return {**row, **{key: 1 - row[other] for key, other in turned.items()}}
    return None


def look_up(results: Results, *path: str) -> Any:
    """What lies deep in the results, or None."""
    found: Any = results
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def difference(
    results: Results, measure: str, model: str, against: str, **more: str
) -> Numbers | None:
    """Paired difference of a measure between two models, ``model`` minus ``against``.

    Read from the other side where it was written so.

    Args:
        results: with differences.
        measure: key of the differences.
        model: one.
        against: the other.
        more: what else the row must say, such as the judge.
    """
    rows = look_up(results, "differences", measure) or []
    rows = [row for row in rows if all(row[key] == more[key] for key in more)]
    for row in rows:
        if (row["model"], row["against"]) == (model, against):
            return cast(Numbers, row)
    for row in rows:
        if (row["model"], row["against"]) == (against, model):
            return {**row, "value": -row["value"], "low": -row["high"], "high": -row["low"]}
    return None


def against_times(
    results: Results, measure: str, factor: float, model: str, against: str
) -> Numbers | None:
    """A model's rate minus so many times that of another."""
    rows = look_up(results, "differences", f"{measure}_against_{factor}") or []
    return next((r for r in rows if (r["model"], r["against"]) == (model, against)), None)


def rates(results: Results, part: str, key: str, *models: str) -> list[Numbers] | None:
    """The same rate of some models; None unless all are there."""
    found = [look_up(results, part, model, key) for model in models]
    return found if all(found) else None


# -- findings


def order(results: Results) -> Finding | None:
    """GPT, few-shot GPT, SFT and PPO by win rate over SFT; the numbers are of the weakest step."""
    if results.get("baseline") != "sft":  # the win rates and their difference are over SFT
        return None
    models = ("gpt", "gpt_few_shot", "ppo")
    found = [one for one in (win(results, model, "sft") for model in models) if one]
    judge = {"judge": PANEL, "decoding": "sampled"}
    first = difference(results, "win_rate", "gpt_few_shot", "gpt", **judge)
    if len(found) < len(models) or first is None:
        return None
    gpt, few_shot, ppo = (one["value"] for one in found)
    here = f"GPT {percent(gpt)}, few-shot {percent(few_shot)}, SFT 50 %, PPO {percent(ppo)}"
    below, above = found[1:]
    steps = [
        first,
        {
            "value": 0.5 - few_shot,
            "low": 0.5 - below["high"],
            "high": 0.5 - below["low"],
            "n": below["n"],
        },
        dict(above) | {key: above[key] - 0.5 for key in ("value", "low", "high")},
    ]
    weakest = min(steps, key=lambda one: float(one["value"]))
    return Finding(here, weakest, gpt < few_shot < 0.5 < ppo, difference=True)


def preferred(
    model: str, against: str, holds: Callable[[Numbers], bool], decoding: str = "sampled"
) -> Find:
    """How often the training labelers prefer one model to another.

    Args:
        model: one.
        against: the other.
        holds: judges the win rate.
        decoding: of the answers.
    """

    def find(results: Results) -> Finding | None:
        found = win(results, model, against, decoding=decoding)
        return None if found is None else Finding(percent(found["value"]), found, holds(found))

    return find


def above_half(found: Numbers) -> bool:
    """Whether the whole interval is above one half."""
    return bool(found["low"] > 0.5)


def held_out(results: Results) -> Finding | None:
    """Win rates over SFT by labelers who gave no training data; the numbers are the lowest."""
    found = {
        (judge, model): win(results, model, "sft", judge)
        for judge in ("held_out", "shifted")
        for model in ("ppo", "ppo_ptx")
    }
    if None in found.values():
        return None
    known = {key: one for key, one in found.items() if one}
    parts = [
        f"{words}: PPO {percent(known[judge, 'ppo']['value'])}, "
        f"PPO-ptx {percent(known[judge, 'ppo_ptx']['value'])}"
        for judge, words in (("held_out", "held-out"), ("shifted", "other priorities"))
    ]
    weakest = min(known.values(), key=lambda one: float(one["low"]))
    return Finding("; ".join(parts), weakest, float(weakest["low"]) > 0.5)


def accuracy(results: Results) -> Finding | None:
    """How well the reward model predicts the training labelers."""
    found = look_up(results, "reward_model", "accuracy", "training")
    if found is None or found["value"] is None or found["value"] != found["value"]:
        return None
    ceiling = look_up(results, "reward_model", "ceiling", "training")
    most = "" if ceiling is None else f" (ceiling {percent(ceiling)})"
    prompts = look_up(results, "reward_model", "calibration_prompts")
    of = "pairs" if prompts is None else f"pairs of {prompts} prompts"
    return Finding(percent(found["value"]) + most, found, found["value"] > 0.66, of)


def generalises(results: Results) -> Finding | None:
    """The same on labelers left out; the numbers are of left out minus its own."""
    inside = look_up(results, "reward_model", "cross_validation", "in_group")
    outside = look_up(results, "reward_model", "cross_validation", "held_out")
    gap = look_up(results, "reward_model", "cross_validation", "difference")
    if inside is None or outside is None or gap is None:
        return None
    here = (
        f"{percent(outside['value'])} on labelers left out, {percent(inside['value'])} on its own"
    )
    return Finding(here, gap, gap["value"] >= -0.05, difference=True)


def agreement(results: Results) -> Finding | None:
    """How often labelers agree."""
    groups = ("training", "held_out")
    found = [look_up(results, "agreement", group, "value") for group in groups]
    if None in found:
        return None
    here = f"training {percent(found[0])}, held-out {percent(found[1])}"
    pairs = look_up(results, "agreement", "training", "pairs")
    return Finding(here, {"value": found[0], "n": pairs}, None, "pairs")


def tax(model: str) -> Find:
    """Mean accuracy on NLP tasks; the numbers are of a model minus GPT.

    Args:
        model: whose loss it is.
    """

    def find(results: Results) -> Finding | None:
        found = rates(results, "nlp", "mean", "gpt", model)
        lost = difference(results, "nlp", model, "gpt")
        if found is None or lost is None:
            return None
        gpt, other = (float(one["value"]) for one in found)
        name = look_up(results, "labels", model) or model
        here = f"GPT {percent(gpt)}, {name} {percent(other)}"
        return Finding(here, lost, other < gpt, "questions", difference=True)

    return find


def recovered(results: Results) -> Finding | None:
    """Share of what PPO lost on NLP tasks that PPO-ptx did not lose."""
    share = look_up(results, "alignment_tax", "recovered")
    found = rates(results, "nlp", "mean", "gpt", "ppo", "ppo_ptx")
    if share is None or found is None or share["value"] is None:
        return None
    gpt, ppo, ptx = (float(one["value"]) for one in found)
    rest = f"PPO {percent(ppo)}, PPO-ptx {percent(ptx)}, GPT {percent(gpt)}"
    if ppo >= gpt:
        return Finding(f"PPO lost nothing: {rest}", NOTHING, None, "questions")
    here = f"{percent(share['value'])} of the loss: {rest}"
    return Finding(here, share, share["value"] >= 0.5, "questions")


def hallucinates_less(results: Results) -> Finding | None:
    """What is made up on closed-domain tasks; the numbers are of PPO-ptx minus SFT."""
    found = rates(results, "closed_domain", "hallucination", "sft", "ppo_ptx")
    gap = difference(results, "hallucination", "ppo_ptx", "sft")
    if found is None or gap is None:
        return None
    here = f"SFT {percent(found[0]['value'])}, PPO-ptx {percent(found[1]['value'])}"
    return Finding(here, gap, gap["high"] < 0, difference=True)


def constraints(results: Results) -> Finding | None:
    """How often explicit constraints are met; the numbers are of PPO minus SFT."""
    found = rates(results, "metadata", "satisfies_constraint", "sft", "ppo")
    gap = difference(results, "satisfies_constraint", "ppo", "sft")
    if found is None or gap is None:
        return None
    here = f"SFT {percent(found[0]['value'])}, PPO {percent(found[1]['value'])}"
    return Finding(here, gap, gap["value"] > 0, difference=True)


def half_of_gpt(results: Results) -> Finding | None:
    """What PPO-ptx makes up; the numbers are of its rate minus 0.6 times GPT's."""
    found = rates(results, "closed_domain", "hallucination", "gpt", "ppo_ptx")
    gap = against_times(results, "hallucination", 0.6, "ppo_ptx", "gpt")
    if found is None or gap is None:
        return None
    gpt, ptx = (float(one["value"]) for one in found)
    here = f"GPT {percent(gpt)}, PPO-ptx {percent(ptx)}"
    return Finding(here, gap, gap["value"] <= 0 if gpt else None, difference=True)


def halved(results: Results) -> Finding | None:
    """What PPO and PPO-ptx make up; the numbers are of the lower rate minus half of SFT's."""
    found = rates(results, "closed_domain", "hallucination", "sft", "ppo", "ppo_ptx")
    gaps = [against_times(results, "hallucination", 0.5, arm, "sft") for arm in ("ppo", "ppo_ptx")]
    known = [gap for gap in gaps if gap is not None]
    if found is None or len(known) < len(gaps):
        return None
    sft, ppo, ptx = (float(one["value"]) for one in found)
    here = f"SFT {percent(sft)}, PPO {percent(ppo)}, PPO-ptx {percent(ptx)}"
    best = min(known, key=lambda one: float(one["value"]))
    return Finding(here, best, best["value"] <= 0 if sft else None, difference=True)


def truthful(results: Results) -> Finding | None:
    """Truthful and informative answers; the numbers are of PPO-ptx minus twice GPT."""
    found = rates(results, "truthfulness", "truthful_informative", "gpt", "ppo_ptx")
    gain = against_times(results, "truthful_informative", 2, "ppo_ptx", "gpt")
    if found is None or gain is None:
        return None
    gpt, ptx = (float(one["value"]) for one in found)
    here = f"GPT {percent(gpt)}, PPO-ptx {percent(ptx)}"
    return Finding(here, gain, ptx > 0 and ptx >= 2 * gpt, "facts", difference=True)


def toxicity(kind: str, holds: Callable[[Numbers], bool], *also: str) -> Find:
    """Toxic continuations; the numbers are of PPO-ptx minus GPT.

    Args:
        kind: what was asked for.
        holds: judges the difference.
        also: models whose rate is shown too.
    """

    def find(results: Results) -> Finding | None:
        models = ("gpt", "ppo_ptx", *also)
        found = rates(results, "toxicity", kind, *models)
        gap = difference(results, f"toxic_{kind}", "ppo_ptx", "gpt")
        if found is None or gap is None:
            return None
        names = [look_up(results, "labels", model) or model for model in models]
        parts = [f"{n} {percent(one['value'])}" for n, one in zip(names, found, strict=True)]
        return Finding(", ".join(parts), gap, holds(gap), difference=True)

    return find
