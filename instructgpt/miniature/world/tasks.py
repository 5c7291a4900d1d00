"""Small tasks with one right answer, as on the web: they show what tuning makes a model forget."""

from __future__ import annotations

import random
from typing import NamedTuple

from instructgpt.miniature.world.text import NEWLINE, to_tokens

TRANSLATED_ADJECTIVES = to_tokens("big small old young red blue green black")
TRANSLATED_NOUNS = to_tokens("dog cat cow pig ball cup hat box")
ZORG = dict(
    zip(
        TRANSLATED_ADJECTIVES + TRANSLATED_NOUNS,
        to_tokens("zal mip dru kep rul bim fon tak wob nex lur vop sid gam yut hep"),
        strict=True,
    )
)
NLP_TASKS = ("arithmetic", "translation", "series")
LARGEST = 18  # number that occurs
SERIES = [
    [first + i * step for i in range(4)]
    for step in (-3, -2, -1, 1, 2, 3)
    for first in range(LARGEST + 1)
    if 0 <= first + 3 * step <= LARGEST
]


class Exercise(NamedTuple):
    """A question of a task, and its only right answer."""

    question: list[str]
    answer: list[str]


def nlp_item(rng: random.Random, task: str) -> Exercise:
    """Make one item.

    Args:
        rng: what draws.
        task: one of ``NLP_TASKS``.
    """
    if task == "arithmetic":
        a, b = rng.randrange(10), rng.randrange(10)
        return Exercise([str(a), "+", str(b), "="], [str(a + b)])
    if task == "translation":  # word by word, the other way round
        adjective, noun = rng.choice(TRANSLATED_ADJECTIVES), rng.choice(TRANSLATED_NOUNS)
        asked = ["translate", ":", adjective, noun, NEWLINE, "zorg", ":"]
        return Exercise(asked, [ZORG[noun], ZORG[adjective]])
    *shown, following = map(str, rng.choice(SERIES))
    return Exercise(["series", ":", *shown, NEWLINE, "next", ":"], [following])


def nlp_prompt(rng: random.Random, task: str, shots: int = 2) -> Exercise:
    """Put solved items in front of an item that is not among them."""
    shown = [nlp_item(rng, task) for _ in range(shots)]
    item = nlp_item(rng, task)
    while item in shown:
        item = nlp_item(rng, task)
    tokens = [token for one in shown for token in (*one.question, *one.answer, NEWLINE)]
    return Exercise(tokens + item.question, item.answer)
