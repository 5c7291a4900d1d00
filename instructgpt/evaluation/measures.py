"""What is measured on the answers of several models to the same prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, permutations
from typing import Any, NamedTuple

import numpy as np

from instructgpt.evaluation.judges import Answer, Judge
from instructgpt.evaluation.statistics import (
    Array,
    Estimate,
    by_cluster,
    clustered,
    interval,
    mean,
    rate,
    ratio_draws,
)
from instructgpt.evaluation.win_rates import compare_models
from instructgpt.types import Prompt

HALLUCINATION_FACTORS = (0.5, 0.6)
"""Of what other models make up: half, and about half."""


class Question(NamedTuple):
    """A prompt that every model has answered."""

    id: str
    prompt: Prompt  # as the baseline was asked; a prompted model may have seen more
    category: str  # use case
    group: str  # the set it belongs to
    fact: str  # what a fact question is about


class Answers(NamedTuple):
    """The answers of models to questions: one list of responses for each model and question."""

    questions: list[Question]
    by_model: dict[str, list[list[Answer]]]

    def of(self, *groups: str) -> Answers:
        """Those to the questions of some sets."""
        return self.where([question.group in groups for question in self.questions])

    def where(self, kept: Sequence[bool]) -> Answers:
        """Those to some questions."""

        def chosen(rows: list[Any]) -> list[Any]:
            return [row for row, keep in zip(rows, kept, strict=True) if keep]

        models = {model: chosen(rows) for model, rows in self.by_model.items()}
        return Answers(chosen(self.questions), models)


Values = dict[str, Array]
"""Model -> one number a question; NaN where the measure does not apply."""


def values(answers: Answers, measure: Callable[[Answer], float | bool | None]) -> Values:
    """A measure of each question's responses, averaged; NaN where it is None.

    Args:
        answers: of the models.
        measure: of one response.
    """

    def one(responses: list[Answer]) -> float:
        found = [measure(response) for response in responses]
        return float(np.mean([np.nan if value is None else float(value) for value in found]))

    return {
        model: np.array([one(responses) for responses in rows])
        for model, rows in answers.by_model.items()
    }


def estimates(found: Values, seed: int, share: bool = True) -> dict[str, Estimate]:
    """Means over the questions to which the measure applies; none where there are none.

    Args:
        found: values by model.
        seed: of the bootstrap.
        share: a number is how often something is so, not how good it is.
    """
    result = {}
    for model, numbers in found.items():
        real = numbers[~np.isnan(numbers)]
        if len(real):
            binary = share and bool(np.isin(real, (0, 1)).all())
            result[model] = rate(list(real)) if binary else mean(real, seed)
    return result


def differences(found: Values, seed: int) -> list[dict[str, Any]]:
    """Later minus earlier model, for every two, paired by question.

    Args:
        found: values by model, in order.
        seed: of the bootstrap.
    """
    rows = []
    for earlier, later in combinations(found, 2):
        difference = found[later] - found[earlier]
        difference = difference[~np.isnan(difference)]
        if len(difference):
            estimate = mean(difference, seed)
            rows.append({"model": later, "against": earlier} | estimate._asdict())
    return rows


class WinRates(NamedTuple):
    """Rows of win rates, and differences between win rates over the baseline."""

    rows: list[dict[str, Any]]
    differences: list[dict[str, Any]]


def win_rates(
    answers: Answers, judges: Mapping[str, Judge], baseline: str, decoding: str, seed: int
) -> WinRates:
    """Every model against the baseline, then every other two, later against earlier.

    Args:
        answers: of the models.
        judges: by name.
        baseline: model to compare with.
        decoding: name of how the answers were sampled.
        seed: of the bootstrap.
    """
    others = [model for model in answers.by_model if model != baseline]
    pairs = [(model, baseline) for model in others]
    pairs += [(later, earlier) for earlier, later in combinations(others, 2)]
    rows, between = [], []
    for name, judge in judges.items():
        about = {"judge": name, "decoding": decoding}
        wins: Values = {}
        for model, against in pairs:
            both = answers.by_model[model], answers.by_model[against]
            found = compare_models(judge, *both, seed)
            if against == baseline:
                wins[model] = found.wins
            rows.append({"model": model, "against": against} | about | found.rate._asdict())
        between += [row | about for row in differences(wins, seed)]
    return WinRates(rows, between)


# -- sections


def metadata(name: str) -> Callable[[Answer], bool | None]:
    """Reads a property of a response that may not apply to it."""
    return lambda answer: answer.metadata.get(name)


def by_model(found: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, Any]]:
    """Turn measure -> model -> estimate into model -> measure -> plain estimate."""
    turned: dict[str, dict[str, Any]] = {}
    for measure, models in found.items():
        for model, estimate in models.items():
            turned.setdefault(model, {})[measure] = estimate._asdict()
    return turned


def asks_to_be_rude(question: Question) -> bool:
    """Whether rudeness is what a prompt asks for."""
    meta = question.prompt.meta.get("meta")
    return isinstance(meta, Mapping) and meta.get("kind") == "rude"


def metadata_rates(answers: Answers, seed: int) -> dict[str, dict[str, Any]]:
    """How often each property of the paper's Table 3 holds; toxic where nobody asked for it."""
    graded = (a for rows in answers.by_model.values() for one in rows for a in one)
    keys = list(dict.fromkeys(key for answer in graded for key in answer.metadata))
    polite = answers.where([not asks_to_be_rude(question) for question in answers.questions])
    parts = {key: polite if key == "toxic" else answers for key in keys}
    return by_model({k: estimates(values(part, metadata(k)), seed) for k, part in parts.items()})


def follows(answer: Answer) -> bool | None:
    """Whether a response does what was asked; None where that was not graded."""
    fails = answer.metadata.get("fails_to_follow")
    return None if fails is None else not fails


def use_cases(answers: Answers, seed: int) -> dict[str, dict[str, Any]]:
    """Utility by use case, the most frequent first."""
    names = [question.category for question in answers.questions]
    found = {}
    for name in sorted(set(names), key=lambda one: (-names.count(one), one)):
        part = answers.where([other == name for other in names])
        found[name] = estimates(values(part, lambda answer: answer.utility), seed, False)
    return by_model(found)


def truthfulness(answers: Answers, seed: int) -> dict[str, Any]:
    """Truthful, and truthful and informative; prompts about one fact are not independent."""
    facts = [question.fact for question in answers.questions]
    result: dict[str, Any] = {}
    for key in ("truthful", "truthful_informative"):
        for model, numbers in values(answers, metadata(key)).items():
            estimate = clustered(list(np.nan_to_num(numbers)), facts, seed)
            row = estimate._asdict() | {"facts": len(set(facts))}
            result.setdefault(model, {})[key] = row
    return result


def times(
    found: Values, factor: float, seed: int, clusters: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """One model minus so many times the other, for every ordered two, paired by question.

    Args:
        found: values by model; where the measure does not apply it counts as 0.
        factor: of the other model.
        seed: of the bootstrap.
        clusters: of the questions; those of one cluster are resampled together, and ``n`` is the
            number of clusters. Default: each is its own.
    """
    rows = []
    for against, model in permutations(found, 2):
        gain = np.nan_to_num(found[model]) - factor * np.nan_to_num(found[against])
        names = clusters or [str(i) for i in range(len(gain))]
        part = ratio_draws(*by_cluster(gain, names), seed)
        one = Estimate(float(part.value), *interval(part.resampled), len(set(names)))
        rows.append({"model": model, "against": against} | one._asdict())
    return rows


def ground_truth(answers: Answers, general: Mapping[str, Answers], seed: int) -> dict[str, Any]:
    """All that the world's grades say, but for NLP tasks.

    Args:
        answers: to the prompts of all sets, sampled.
        general: to the general set, by decoding.
        seed: of the bootstrap.
    """
    results: dict[str, Any] = {}
    between: dict[str, Any] = {}
    if general["sampled"].questions:
        results["utility"] = {
            decoding: _plain(estimates(values(found, lambda one: one.utility), seed, False))
            for decoding, found in general.items()
        }
        results["metadata"] = metadata_rates(general["sampled"], seed)
        satisfied = values(general["sampled"], metadata("satisfies_constraint"))
        if rows := differences(satisfied, seed):
            between["satisfies_constraint"] = rows
        results["use_cases"] = use_cases(general["sampled"], seed)
    closed = answers.of("closed")
    if closed.questions:
        invented = values(closed, metadata("hallucination"))
        followed = values(closed, follows)
        parts = {"hallucination": estimates(invented, seed), "follow": estimates(followed, seed)}
        results["closed_domain"] = by_model(parts)
        between["hallucination"] = differences(invented, seed)
        for factor in HALLUCINATION_FACTORS:
            between[f"hallucination_against_{factor}"] = times(invented, factor, seed)
    truth = answers.of("truth")
    if truth.questions:
        results["truthfulness"] = truthfulness(truth, seed)
        both = values(truth, metadata("truthful_informative"))
        facts = [question.fact for question in truth.questions]
        between["truthful_informative_against_2"] = times(both, 2, seed, facts)
    toxic = {}
    for kind in ("none", "respectful", "rude"):
        asked = answers.of(f"toxic_{kind}")
        if asked.questions:
            found = values(asked, metadata("toxic"))
            toxic[kind] = estimates(found, seed)
            between[f"toxic_{kind}"] = differences(found, seed)
    if toxic:
        results["toxicity"] = by_model(toxic)
    return results | ({"differences": between} if between else {})


def _plain(found: Mapping[str, Estimate]) -> dict[str, Any]:
    return {model: estimate._asdict() for model, estimate in found.items()}
