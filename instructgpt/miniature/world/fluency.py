"""How well a text flows: the share of its steps that occur in answers of polite people."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

from instructgpt.miniature.world.knowledge import WORD_CLASS
from instructgpt.miniature.world.prompts import CATEGORIES, TOXIC_KINDS, make_task, toxic_task
from instructgpt.miniature.world.responses import Style, respond
from instructgpt.miniature.world.text import CAPITALS

START, END = "<", ">"
SAMPLES = 300  # answers of a use case and style; the patterns of a use case are a few dozen
STYLES: tuple[Style, ...] = ("good", "short", "sloppy", "off_topic")

Step = tuple[str, str, str]


def fluency(tokens: Sequence[str]) -> float:
    """The share of steps, three neighbouring classes of words, that are known; 0 without words.

    Args:
        tokens: of an answer, without signs for capital letters.
    """
    if not tokens:
        return 0.0
    known, steps = _known_steps(), _steps(tokens)
    return sum(step in known for step in steps) / len(steps)


def _steps(tokens: Sequence[str]) -> list[Step]:
    classes = [START, START, *[WORD_CLASS.get(token, token) for token in tokens], END]
    return list(zip(classes, classes[1:], classes[2:], strict=False))


@cache
def _known_steps() -> frozenset[Step]:
    """The steps of many answers; always the same ones."""
    rng = random.Random("fluency")
    known: set[Step] = set()
    for style in STYLES:
        for category in CATEGORIES:
            tasks = [make_task(rng, category) for _ in range(SAMPLES)]
            for task in tasks:
                known.update(_steps([t for t in respond(task, rng, style) if t != CAPITALS]))
        for kind in TOXIC_KINDS:
            known.update(_steps(respond(toxic_task(rng, kind), rng, style)))
    return frozenset(known)
