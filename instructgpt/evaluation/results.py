"""What an evaluation finds out: the types of ``results.json``, in the order of the file.

A field with a default is not in the file where nothing was measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from instructgpt.evaluation.files import read_json
from instructgpt.evaluation.records import from_json
from instructgpt.evaluation.statistics import Estimate

Table = dict[str, dict[str, Estimate]]
"""Model -> measure -> estimate; or decoding -> model -> estimate."""

Curve = list[tuple[float, float]]
"""Steps and values."""

Curves = dict[str, Curve]
"""Metric -> curve."""

Verdict = Literal["holds", "does not hold", "not judged"]


class WinRate(NamedTuple):
    """Share of prompts on which a judge prefers a model to another, a tie counting half."""

    model: str
    against: str
    judge: str
    decoding: str
    value: float
    low: float  # bootstrap over prompts
    high: float
    wilson_low: float  # binomial
    wilson_high: float
    ties: float
    order_consistency: float
    n: int
    length_controlled: Estimate | None = None  # as if both answers were as long

    @property
    def estimate(self) -> Estimate:
        """With the interval of the bootstrap."""
        return Estimate(self.value, self.low, self.high, self.n)


class ShowingOrder(NamedTuple):
    """What the order of two answers did to a judge who sees both; over pairs, by prompts."""

    judge: str
    decoding: str
    first_preferred: Estimate  # how often what was shown first won; half where order plays no part
    flips: Estimate  # how often the other order had another winner
    unusable: int  # pairs that are left out: the judge said nothing usable in one of the orders


class Difference(NamedTuple):
    """A measure of a model minus that of another, or minus so many times that of another."""

    model: str
    against: str
    value: float
    low: float
    high: float
    n: int
    judge: str | None = None  # of a difference between win rates
    decoding: str | None = None

    @property
    def estimate(self) -> Estimate:
        """Value and interval."""
        return Estimate(self.value, self.low, self.high, self.n)


class Agreement(NamedTuple):
    """How often the labelers of a group agree."""

    value: float
    target: float | None  # that their noise was set for
    labelers: list[str]
    matrix: list[list[float]]
    pairs: int


class Bin(NamedTuple):
    """Pairs of about the same confidence of a reward model."""

    confidence: float
    accuracy: float
    low: float
    high: float
    pairs: int
    prompts: int


class Fold(NamedTuple):
    """Accuracy of one fold's reward model."""

    in_group: Estimate
    held_out: Estimate


class CrossValidation(NamedTuple):
    """Accuracy on labelers whom a reward model has learned from, and on those left out."""

    in_group: Estimate
    held_out: Estimate
    difference: Estimate
    folds: list[Fold]


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    """A reward model against rankings that it has not seen."""

    accuracy: dict[str, Estimate]  # by group of labelers, or by set
    longer_wins: dict[str, Estimate]
    bag_of_words: dict[str, Estimate] = field(default_factory=dict)  # fitted on its training rows
    calibration: dict[str, float] = field(default_factory=dict)  # error of each group
    disagreement: dict[str, Estimate] = field(default_factory=dict)  # of heads about a margin
    ground_truth_accuracy: Estimate | None = None
    calibration_error: float
    calibration_prompts: int
    reliability: list[Bin]
    ceiling: dict[str, float] = field(default_factory=dict)
    cross_validation: CrossValidation | None = None


class Background(NamedTuple):
    """How a reward model that judges came to be, as far as its folder says."""

    started_from: str | None
    data: list[str]  # sets and rows
    shares: list[str]  # with the reward model that policies were trained against


class BestOf(NamedTuple):
    """The best of n samples by a reward model."""

    n: int
    kl: float  # at most
    score: Estimate
    utility: Estimate | None = None
    win_rate: Estimate | None = None  # over one more sample
    disagreement: Estimate | None = None  # of the heads of the reward model about the best


class Checkpoint(NamedTuple):
    """A policy in training, by its answers to validation prompts."""

    step: int
    kl: float  # from where it started
    score: Estimate | None = None
    utility: Estimate | None = None


@dataclass(kw_only=True)
class OverOptimisation:
    """Score and true utility against the distance from the start."""

    best_of_n: list[BestOf] = field(default_factory=list)
    checkpoints: dict[str, list[Checkpoint]] = field(default_factory=dict)  # by model


class AlignmentTax(NamedTuple):
    """What mixing in pretraining wins back."""

    recovered: Estimate


class ShownAnswer(NamedTuple):
    """An answer in the report."""

    text: str
    utility: float | None


class ShownPrompt(NamedTuple):
    """A prompt of the report: model -> decoding -> answer."""

    id: str
    prompt: str
    category: str
    answers: dict[str, dict[str, ShownAnswer]]


class Claim(NamedTuple):
    """A claim beside what was measured."""

    id: str
    section: str  # of the report
    claim: str
    own: bool  # a check of ours that the paper does not claim
    paper: str
    rule: str
    here: str
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    of: str  # what n counts
    difference: bool  # the numbers are of a difference, which ``here`` does not state
    verdict: Verdict


@dataclass(kw_only=True)
class Results:
    """Everything in ``results.json``."""

    title: str
    seed: int
    models: list[str]
    labels: dict[str, str]
    baseline: str
    decodings: list[str]
    judges: dict[str, str]  # name -> description
    win_rates: list[WinRate] = field(default_factory=list)
    showing_orders: list[ShowingOrder] = field(default_factory=list)
    reward_models: dict[str, Background] = field(default_factory=dict)  # where two judge
    differences: dict[str, list[Difference]] = field(default_factory=dict)  # by measure
    scores: dict[str, Table] = field(default_factory=dict)  # decoding -> model -> measure
    texts: dict[str, Table] = field(default_factory=dict)  # decoding -> model -> measure
    likert: Table = field(default_factory=dict)  # decoding -> model
    utility: Table = field(default_factory=dict)  # decoding -> model
    metadata: Table = field(default_factory=dict)
    use_cases: Table = field(default_factory=dict)
    closed_domain: Table = field(default_factory=dict)
    truthfulness: Table = field(default_factory=dict)
    toxicity: Table = field(default_factory=dict)
    nlp: Table = field(default_factory=dict)
    alignment_tax: AlignmentTax | None = None
    agreement: dict[str, Agreement] = field(default_factory=dict)  # by group of labelers
    reward_model: RewardModel | None = None
    judge_model: RewardModel | None = None  # the second one
    over_optimisation: OverOptimisation | None = None
    curves: dict[str, Curves] = field(default_factory=dict)  # by stage
    samples: list[ShownPrompt] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)

    def add_differences(self, measure: str, rows: list[Difference]) -> None:
        """Paired differences between models; none where there are no two models."""
        if rows:
            self.differences[measure] = rows

    @property
    def tables(self) -> dict[str, Table]:
        """What was measured of each model on sampled answers, by part."""
        return {
            "metadata": self.metadata,
            "use_cases": self.use_cases,
            "closed_domain": self.closed_domain,
            "truthfulness": self.truthfulness,
            "toxicity": self.toxicity,
            "nlp": self.nlp,
        }

    @property
    def ratings(self) -> dict[str, Table]:
        """What was measured of each model with each decoding, by part."""
        return {"likert": self.likert, "utility": self.utility}

    @property
    def tested(self) -> dict[str, RewardModel]:
        """The reward models that were compared with rankings, by the name of the judge."""
        both = {"reward_model": self.reward_model, "judge_model": self.judge_model}
        return {name: one for name, one in both.items() if one is not None}

    def last_checkpoint(self, model: str) -> Checkpoint | None:
        """The last validation of the run that trained a model."""
        known = self.over_optimisation.checkpoints if self.over_optimisation is not None else {}
        return known[model][-1] if known.get(model) else None

    @property
    def over_baseline(self) -> list[WinRate]:
        """Win rates against the baseline."""
        return [row for row in self.win_rates if row.against == self.baseline != row.model]


def read_results(path: str | Path) -> Results:
    """The results in a file; what is not of this version is refused.

    Args:
        path: ``results.json``.
    """
    return from_json(Results, read_json(str(path)), str(path))
