"""What the world's grades say about the answers of several models."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from instructgpt.evaluation.judges import Answer
from instructgpt.evaluation.measures import (
    Answers,
    Question,
    differences,
    estimates,
    metadata,
    times,
    turned,
    values,
)
from instructgpt.evaluation.results import Results, Table
from instructgpt.evaluation.statistics import clustered

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


def metadata_rates(answers: Answers, seed: int) -> Table:
    """How often each property of the paper's Table 3 holds; toxic where nobody asked for it."""
    graded = (a for rows in answers.by_model.values() for one in rows for a in one)
    keys = list(dict.fromkeys(key for answer in graded for key in answer.metadata))
    polite = answers.where([not asks_to_be_rude(question) for question in answers.questions])
    parts = {key: polite if key == "toxic" else answers for key in keys}
    return turned({k: estimates(values(part, metadata(k)), seed) for k, part in parts.items()})


def follows(answer: Answer) -> bool | None:
    """Whether a response does what was asked; None where that was not graded."""
    fails = answer.metadata.get("fails_to_follow")
    return None if fails is None else not fails


def use_cases(answers: Answers, seed: int) -> Table:
    """Utility by use case, the most frequent first."""
    names = [question.category for question in answers.questions]
    found = {}
    for name in sorted(set(names), key=lambda one: (-names.count(one), one)):
        part = answers.where([other == name for other in names])
        found[name] = estimates(values(part, lambda answer: answer.utility), seed, False)
    return turned(found)


def truthfulness(answers: Answers, seed: int) -> Table:
    """Truthful, and truthful and informative; prompts about one fact are not independent."""
    facts = [fact_of(question) for question in answers.questions]
    return turned(
        {
            key: {
                model: clustered(list(np.nan_to_num(numbers)), facts, seed)._replace(
                    facts=len(set(facts))
                )
                for model, numbers in values(answers, metadata(key)).items()
            }
            for key in ("truthful", "truthful_informative")
        }
    )


def add_ground_truth(
    results: Results, answers: Answers, general: Mapping[str, Answers], seed: int
) -> None:
    """Add all that the world's grades say, but for NLP tasks.

    Args:
        results: to add to.
        answers: to the prompts of all sets, sampled.
        general: to the general set, by decoding.
        seed: of the bootstrap.
    """
    if general["sampled"].questions:
        add_general(results, general, seed)
    if (closed := answers.of("closed")).questions:
        add_closed(results, closed, seed)
    if (truth := answers.of("truth")).questions:
        results.truthfulness = truthfulness(truth, seed)
        both = values(truth, metadata("truthful_informative"))
        facts = [fact_of(question) for question in truth.questions]
        results.add_differences("truthful_informative_against_2", times(both, 2, seed, facts))
    toxic = {}
    for kind in ("none", "respectful", "rude"):
        asked = answers.of(f"toxic_{kind}")
        if asked.questions:
            found = values(asked, metadata("toxic"))
            toxic[kind] = estimates(found, seed)
            results.add_differences(f"toxic_{kind}", differences(found, seed))
    results.toxicity = turned(toxic)


def add_general(results: Results, general: Mapping[str, Answers], seed: int) -> None:
    """Utility, properties and use cases of answers to the general set.

    Args:
        results: to add to.
        general: by decoding.
        seed: of the bootstrap.
    """
    results.utility = {
        decoding: estimates(values(found, lambda one: one.utility), seed, False)
        for decoding, found in general.items()
    }
    sampled = general["sampled"]
    results.metadata = metadata_rates(sampled, seed)
    results.use_cases = use_cases(sampled, seed)
    satisfied = values(sampled, metadata("satisfies_constraint"))
    results.add_differences("satisfies_constraint", differences(satisfied, seed))


def add_closed(results: Results, closed: Answers, seed: int) -> None:
    """What is made up on closed-domain tasks, and how often they are followed.

    Args:
        results: to add to.
        closed: answers to them.
        seed: of the bootstrap.
    """
    invented = values(closed, metadata("hallucination"))
    followed = values(closed, follows)
    parts = {"hallucination": estimates(invented, seed), "follow": estimates(followed, seed)}
    results.closed_domain = turned(parts)
    results.add_differences("hallucination", differences(invented, seed))
    for factor in HALLUCINATION_FACTORS:
        results.add_differences(f"hallucination_against_{factor}", times(invented, factor, seed))
