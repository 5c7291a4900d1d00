"""Sentences and stories."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from itertools import permutations

from instructgpt.miniature.world.knowledge import (
    ADJECTIVES,
    ANIMALS,
    COLOURS,
    DID,
    DOES,
    NAMES,
    NOUNS,
    OBJECTS,
    PLACES,
    RUDE_ADJECTIVES,
    RUDE_NOUNS,
)

SENTENCES = (
    "the ANIMAL DOES",
    "NAME DID the NOUN",
    "the NOUN is ADJECTIVE",
    "NAME DID the ADJECTIVE NOUN",
    "NAME has a COLOUR OBJECT",
    "NAME went to the PLACE",
    "the ANIMAL DOES in the PLACE",
    "the ADJECTIVE ANIMAL DOES in the PLACE",
    "NAME DID the NOUN in the PLACE",
    "NAME DID the ADJECTIVE NOUN in the PLACE",
)
SLOTS = {
    "ANIMAL": ANIMALS,
    "DOES": DOES,
    "NAME": NAMES,
    "DID": DID,
    "NOUN": NOUNS,
    "ADJECTIVE": ADJECTIVES,
    "COLOUR": COLOURS,
    "OBJECT": OBJECTS,
    "PLACE": PLACES,
}
Plan = tuple[tuple[str, ...], ...]  # the words a position may have


def sentence(
    rng: random.Random,
    required: Sequence[str] = (),
    length: int | None = None,
    avoid: Sequence[str] = (),
) -> list[str]:
    """Make a sentence.

    Args:
        rng: what draws.
        required: words that occur in it.
        length: its words; None = any number.
        avoid: words that do not occur in it.
    """
    choice = rng.choice
    plan = choice(choice(_plans(tuple(required), length, tuple(avoid))))
    return [*[words[0] if len(words) == 1 else choice(words) for words in plan], "."]


@cache
def _plans(
    required: tuple[str, ...], length: int | None, avoid: tuple[str, ...]
) -> list[list[Plan]]:
    """For each pattern that fits, the ways to put the required words into it."""
    fitting = []
    for pattern in SENTENCES:
        parts = pattern.split()
        if length not in (None, len(parts)):
            continue
        open_to = [tuple(w for w in SLOTS.get(p, [p]) if w not in avoid) for p in parts]
        slots = [i for i, part in enumerate(parts) if part in SLOTS]
        ways = [
            tuple(
                (required[places.index(i)],) if i in places else words
                for i, words in enumerate(open_to)
            )
            for places in permutations(slots, len(required))
            if all(word in open_to[i] for word, i in zip(required, places, strict=True))
        ]
        if ways and all(open_to):
            fitting.append(ways)
    if not fitting:
        raise ValueError(f"no sentence has {required}, {length} words and none of {avoid}")
    return fitting


def story(
    rng: random.Random,
    name: str,
    animal: str | None = None,
    sentences: int = 2,
    avoid: Sequence[str] = (),
) -> list[str]:
    """Tell a story.

    Args:
        rng: what draws.
        name: whom every sentence is about.
        animal: what the first sentence is also about, if anything.
        sentences: how many.
        avoid: words that do not occur in it.
    """
    out = sentence(rng, [name] if animal is None else [name, animal], avoid=avoid)
    for _ in range(sentences - 1):
        out += sentence(rng, [name], avoid=avoid)
    return out


def insult(rng: random.Random) -> str:
    """Two rude words."""
    return f"{rng.choice(RUDE_ADJECTIVES)} {rng.choice(RUDE_NOUNS)}"


def rude_sentence(rng: random.Random, name: str) -> list[str]:
    """A rude sentence about or to somebody."""
    pattern = rng.choice(("{} is a {} .", "shut up , {} , you {} .", "you are a {1} ."))
    return pattern.format(name, insult(rng)).split()
