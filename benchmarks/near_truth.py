"""Texts with planted near duplicates, each by a stated number of edits."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

EDITS = {
    "capitals, punctuation, white space": 0.0,
    "1 % of the words": 0.01,
    "3 % of the words": 0.03,
    "5 % of the words": 0.05,
    "10 % of the words": 0.10,
    "20 % of the words": 0.20,
    "a sentence more": 0.0,
    "sentences swapped": 0.0,
}
"""What a copy differs by, and the share of its words that are replaced."""

TASKS = [
    "Write a {} about {}.", "Summarise the following text about {1} as a {0}.",
    "Explain to a child how a {} is related to {}.", "What is the difference between {} and {}?",
    "Give me five ideas for a {} with {}.", "Is a {} more useful than {}? Answer briefly.",
    "A {0} costs 12 dollars and a {1} costs 7. How much do 3 of each cost?",
]  # fmt: skip


class Pair(NamedTuple):
    """A text, and the place of the text that it is a copy of (-1: of none)."""

    text: str
    copy_of: int
    edit: str


def near_texts(seed: int, count: int, copies: float, median: int = 60) -> list[Pair]:
    """Texts of which some are copies of earlier ones with edits.

    Words follow Zipf's law, so that unrelated texts share the common ones; a quarter are short
    tasks from templates, which resemble each other without being copies.

    Args:
        seed: of all choices.
        count: texts.
        copies: share of them that are copies.
        median: words of a text that is none of a template.
    """
    rng = random.Random(seed)
    letters = "bcdfghklmnprstaeiou"
    vocabulary = ["".join(rng.choices(letters, k=n)) for n in rng.choices(range(2, 9), k=30_000)]
    weights = [1 / (rank + 3) for rank in range(len(vocabulary))]
    cumulated = [0.0]
    for weight in weights:
        cumulated.append(cumulated[-1] + weight)

    def some(length: int) -> list[str]:
        return rng.choices(vocabulary, cum_weights=cumulated[1:], k=length)

    def sentences(length: int) -> str:
        parts, left = [], length
        while left > 0:
            size = min(left, rng.randrange(6, 18))
            parts.append(" ".join(some(size)).capitalize() + rng.choice([".", ".", "?"]))
            left -= size
        return " ".join(parts)

    texts: list[Pair] = []
    originals: list[int] = []
    for place in range(count):
        if originals and rng.random() < copies:
            source, edit = rng.choice(originals), rng.choice(list(EDITS))
            texts.append(Pair(edited(rng, texts[source].text, edit, some), source, edit))
            continue
        short = rng.random() < 0.25
        size = max(5, int(rng.lognormvariate(0, 0.8) * median))
        task = rng.choice(TASKS).format(*rng.sample(vocabulary, 2))
        texts.append(Pair(task if short else sentences(size), -1, ""))
        originals.append(place)
    return texts


def edited(rng: random.Random, text: str, edit: str, some: Callable[[int], list[str]]) -> str:
    """A copy of a text with edits."""
    if edit == "capitals, punctuation, white space":
        spaced = text.replace(".", " !").replace(" ", "  ")
        return rng.choice([text.upper(), spaced, f"\n{text.lower()}"])
    if edit == "a sentence more":
        return f"{text} {' '.join(some(8)).capitalize()}."
    if edit == "sentences swapped":
        parts = text.split(". ")
        rng.shuffle(parts)
        return ". ".join(parts)
    words = text.split()
    changed = max(1, round(EDITS[edit] * len(words)))
    for place in rng.sample(range(len(words)), min(changed, len(words))):
        words[place] = rng.choice([*some(1), "", words[place][::-1]])
    return " ".join(words)


def jaccard(first: list[str], second: list[str], size: int) -> float:
    """Runs of so many words in common, over runs in either; the definition, word by word."""
    sets = [
        {tuple(one[at : at + size]) for at in range(max(1, len(one) - size + 1))}
        for one in (first, second)
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])
