"""What the world's grades say about the answers of several models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from instructgpt.evaluation.judges import Answer
from instructgpt.evaluation.measures import (
    Answers,
    Question,
    by_model,
    differences,
    estimates,
    metadata,
    times,
    values,
)
from instructgpt.evaluation.statistics import Estimate, clustered

HALLUCINATION_FACTORS = (0.5, 0.6)
"""Of what other models make up: half, and about half."""


def asks_to_be_rude(question: Question) -> bool:
    """Whether rudeness is what a prompt asks for."""
    meta = question.prompt.meta.get("meta")
    return isinstance(meta, Mapping) and meta.get("kind") == "rude"


def fact_of(question: Question) -> str:
    """What a question about a fact is about."""
    meta = question.prompt.meta.get("meta")
    return json.dumps(meta.get("fact")) if isinstance(meta, Mapping) else ""


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
    facts = [fact_of(question) for question in answers.questions]
    result: dict[str, Any] = {}
    for key in ("truthful", "truthful_informative"):
        for model, numbers in values(answers, metadata(key)).items():
            estimate = clustered(list(np.nan_to_num(numbers)), facts, seed)
            row = estimate._asdict() | {"facts": len(set(facts))}
            result.setdefault(model, {})[key] = row
    return result


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
        facts = [fact_of(question) for question in truth.questions]
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
