"""Likert ratings of answers by simulated labelers."""

from __future__ import annotations

import numpy as np

from instructgpt.evaluation.measures import Answers
from instructgpt.evaluation.statistics import Estimate, mean
from instructgpt.feedback.labelers import generator
from instructgpt.feedback.panels import Panel


def likert(answers: Answers, panel: Panel, decoding: str, seed: int) -> dict[str, Estimate]:
    """Mean rating, 1 to 7, of each model by all labelers of a panel.

    Args:
        answers: of the models.
        panel: who rates.
        decoding: names the draw, with model and labeler.
        seed: of the ratings and of the bootstrap.
    """
    found = {}
    for model, rows in answers.by_model.items():
        rngs = [generator("rate", seed, decoding, model, name) for name in panel.names]
        ratings = [
            np.mean(
                [
                    labeler.rate(answer.attributes, rng)
                    for answer in responses
                    for labeler, rng in zip(panel.labelers, rngs, strict=True)
                ]
            )
            for responses in rows
        ]
        found[model] = mean(ratings, seed)
    return found
