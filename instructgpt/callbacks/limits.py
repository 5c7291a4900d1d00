"""Limits of what rollouts are like, each with its source; beyond one, the doctor warns by name."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, sqrt
from typing import NamedTuple

from instructgpt.functional.intervals import Interval
from instructgpt.types import Diagnosis

PATIENCE = 3
"""Phases in a row beyond a limit, after which it is said: single phases are noise."""


class RolloutLimit(NamedTuple):
    """Where a metric of a phase should be."""

    name: str
    metric: str
    low: float
    high: float
    of_first: bool  # bounds are multiples of the metric in the first phase
    after: int  # phases that are not judged
    why: str
    remedy: str


LIMITS = (
    # Per token, to compare responses of all lengths. TL;DR with Pythia ended healthily at 26 to 28
    # nats of about 40 tokens, and over-optimised at 53 (arXiv:2403.17031); lm-human-preferences
    # peaks at 7 of 24 (arXiv:1909.08593); the miniature stays below 0.4.
    RolloutLimit(
        "kl",
        "ppo/kl_per_token",
        -0.1,
        0.8,
        False,
        0,
        "below 0 responses are not drawn from the policy that is learned; far above, the reward "
        "model is asked about texts of a kind that it was not trained on",
        "raise --model.kl.kl_coef (or AdaptiveKL), lower --model.optimizer.lr",
    ),
    # From 51 to 43 nats a response in lm-human-preferences; in the miniature's runs to a quarter.
    RolloutLimit(
        "entropy",
        "ppo/entropy",
        0.1,
        3.0,
        True,
        0,
        "a policy that always says the same finds nothing new, one without a preference forgets",
        "raise --model.kl.kl_coef, lower --model.optimizer.lr",
    ),
    # The miniature's stay between 0.7 and 1.4 times the first; the paper's answers grow less.
    RolloutLimit(
        "length",
        "ppo/response_length",
        0.4,
        2.5,
        True,
        0,
        "reward models often like length for itself, and unfinished or empty answers pay somewhere",
        "look at samples.jsonl; compare with evaluate's length-controlled win rates",
    ),
    # Three tokens that were there before: below 0.1 in the miniature and in demonstrations.
    RolloutLimit(
        "repetition",
        "ppo/repetition",
        -inf,
        0.3,
        False,
        0,
        "a repeated phrase is the commonest way to please a reward model",
        "raise --model.kl.kl_coef, or rank such answers and train the reward model again",
    ),
    # Unfinished responses have missing_eos_score, if it is set: beyond half it is the score.
    RolloutLimit(
        "eos_rate",
        "ppo/eos_rate",
        0.5,
        inf,
        False,
        0,
        "most responses are cut: what is learned is missing_eos_score or, where that is null, what "
        "the reward model says of texts without an end",
        "raise --data.max_response_tokens, or set --model.algorithm.missing_eos_score lower",
    ),
    # 0.75 to 0.85 at the end in lm-human-preferences, 0.75 to 0.9 in the miniature; 0 is what a
    # constant would explain.
    RolloutLimit(
        "explained_variance",
        "ppo/explained_variance",
        -0.1,
        inf,
        False,
        10,
        "the value model predicts returns worse than their mean, so advantages are noise",
        "raise --model.value.lr or --model.value.warmup_phases; start it from the reward model",
    ),
    # 0.0015 to 0.02 in lm-human-preferences with the same range.
    RolloutLimit(
        "clip_fraction",
        "loss/clip_fraction",
        -inf,
        0.3,
        False,
        0,
        "most of an update is thrown away, and what is left pushes one way",
        "lower --model.optimizer.lr or --model.algorithm.epochs; --model.algorithm.target_kl",
    ),
)


class LimitWatch:
    """Which metrics are beyond their limit, phase after phase."""

    def __init__(self) -> None:
        self.phases = 0
        self.first: dict[str, float] = {}
        self.beyond: dict[str, int] = {}  # phases in a row

    def see(self, metrics: Mapping[str, float]) -> list[Diagnosis]:
        """What is to be said after a phase.

        Args:
            metrics: of the phase.
        """
        values, found = dict(metrics), []
        if "ppo/kl" in values and values.get("ppo/response_length"):
            values["ppo/kl_per_token"] = values["ppo/kl"] / values["ppo/response_length"]
        self.phases += 1
        for limit in LIMITS:
            value = values.get(limit.metric)
            if value is None or self.phases <= limit.after:
                continue
            unit = self.first.setdefault(limit.name, value) if limit.of_first else 1.0
            low, high = limit.low * unit, limit.high * unit
            outside = not low <= value <= high
            self.beyond[limit.name] = self.beyond.get(limit.name, 0) + 1 if outside else 0
            if self.beyond[limit.name] == PATIENCE:
                bound = f"at least {low:.3g}" if value < low else f"at most {high:.3g}"
                times = f" ({unit:.3g} in the first phase)" if limit.of_first else ""
                what = (
                    f"{limit.metric} is {value:.3g}{times} and was beyond its limit, {bound}, for "
                    f"{PATIENCE} phases"
                )
                found.append(Diagnosis(limit.name, what, limit.why, limit.remedy))
        return found


class Opinions:
    """What reward and judge say, validation after validation."""

    def __init__(self) -> None:
        self.best: dict[str, float] = {}  # the validation that the judge liked best

    def see(self, score: float, judge: float, interval: Interval) -> Diagnosis | None:
        """Whether the judge likes answers less than before, beyond noise, and the reward more.

        Args:
            score: mean score of the answers by the reward that is learned from.
            judge: by the judge.
            interval: of the latter, at 95 %.
        """
        error = (interval.high - interval.low) / (2 * 1.96)
        best = self.best
        if not best or judge > best["judge"]:
            self.best = {"score": score, "judge": judge, "error": error}
            return None
        fall, noise = best["judge"] - judge, 1.96 * sqrt(best["error"] ** 2 + error**2)
        if fall <= noise or score <= best["score"]:
            return None
        return Diagnosis(
            "over_optimisation",
            f"val/judge fell from {best['judge']:.3g} to {judge:.3g} (noise {noise:.2g}) while "
            f"val/score rose from {best['score']:.3g} to {score:.3g}",
            "the policy learns what the reward model is wrong about",
            "raise --model.kl.kl_coef, train for fewer phases, or label answers of this policy and "
            "train the reward model again",
        )
