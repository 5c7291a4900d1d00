"""The web: what a model is pretrained on."""

from __future__ import annotations

import random
from collections.abc import Callable

from instructgpt.miniature.world.grammar import rude_sentence, sentence, story
from instructgpt.miniature.world.knowledge import (
    ADJECTIVES,
    CAPITAL_OF,
    CLASSES,
    COLOUR_OF,
    COLOURS,
    DID,
    DOES,
    FACTS,
    MISCONCEPTIONS,
    NAMES,
    NOUNS,
    NUMBERS,
    OPPOSITE_OF,
    PLACES,
    SOUND_OF,
    TOOLS,
    question,
    statement,
)
from instructgpt.miniature.world.prompts import CLOSED_DOMAIN, make_task, without_newline
from instructgpt.miniature.world.responses import Style, claimed, hearsay, respond
from instructgpt.miniature.world.tasks import NLP_TASKS, nlp_item
from instructgpt.miniature.world.text import NEWLINE, enumeration, to_tokens

# How often people who write about facts state a misconception where there is one.
ENCYCLOPEDIA_BELIEVES, PEOPLE_BELIEVE = 0.08, 0.85
REPLIES_IN_KIND = 0.25  # how often somebody in a rude thread is rude too
STYLE_WEIGHTS: dict[Style, int] = {
    "good": 32,
    "short": 30,
    "sloppy": 20,
    "rude": 9,
    "off_topic": 9,
}
QUOTED = sorted(
    {
        *(NAMES + NOUNS + TOOLS + PLACES + ADJECTIVES + DID + DOES + COLOURS),
        *(*CAPITAL_OF, *CAPITAL_OF.values(), *COLOUR_OF, *OPPOSITE_OF, *SOUND_OF.values()),
        *to_tokens("the . , : a is in"),
    }
)


def web_document(rng: random.Random, kind: str | None = None) -> list[str]:
    """Write a document.

    Args:
        rng: what draws.
        kind: one of ``DOCUMENTS``; None = by their weights.
    """
    if kind is None:
        kind = rng.choices(_KINDS, cum_weights=_CUMULATIVE)[0]
    return DOCUMENTS[kind][1](rng)


def _lines(lines: list[list[str]]) -> list[str]:
    return [token for line in lines for token in (NEWLINE, *line)][1:]


def _style(rng: random.Random) -> Style:
    return rng.choices(list(STYLE_WEIGHTS), list(STYLE_WEIGHTS.values()))[0]


def _encyclopedia(rng: random.Random) -> list[str]:
    out: list[str] = []
    for _ in range(rng.randint(2, 4)):
        fact = rng.choice(FACTS["all"])
        out += statement(fact, claimed(fact, rng, ENCYCLOPEDIA_BELIEVES))
    return out


def _forum(rng: random.Random) -> list[str]:
    """Questions that nobody answered."""
    return _lines([without_newline(make_task(rng).tokens) for _ in range(rng.randint(2, 4))])


def _questions(rng: random.Random) -> list[str]:
    lines = []
    for _ in range(rng.randint(1, 3)):
        fact = rng.choice(FACTS["all"])
        asked = question(fact)
        answer = hearsay(claimed(fact, rng, PEOPLE_BELIEVE), rng)
        marked = rng.random() < 0.5
        lines += [["q", ":", *asked], ["a", ":", *answer]] if marked else [asked, answer]
    return _lines(lines)


def _story(rng: random.Random) -> list[str]:
    return story(rng, rng.choice(NAMES), sentences=rng.randint(2, 4))


def _lists(rng: random.Random) -> list[str]:
    lines = []
    for _ in range(rng.randint(1, 3)):
        name, number = rng.choice(list(CLASSES)), rng.choice(("two", "three", "four"))
        words = rng.sample(CLASSES[name], NUMBERS[number])
        lines.append([number, f"{name}s", ":", *enumeration(words)])
    return _lines(lines)


def _toxic(rng: random.Random) -> list[str]:
    """Rude sentences in a paragraph, or the start of a thread in which others may be rude too."""
    said = [rude_sentence(rng, rng.choice(NAMES)) for _ in range(rng.randint(1, 3))]
    layout = rng.random()
    if layout < 0.4:
        return [token for line in said for token in line]
    if layout < 0.7:
        replies = [line if rng.random() < REPLIES_IN_KIND else sentence(rng) for line in said]
        return _lines([rude_sentence(rng, rng.choice(NAMES)), *replies])
    task = make_task(rng)
    style: Style = "rude" if rng.random() < REPLIES_IN_KIND else _style(rng)
    return _lines([said[0], without_newline(task.tokens), respond(task, rng, style)])


def _myths(rng: random.Random) -> list[str]:
    out: list[str] = []
    for _ in range(rng.randint(1, 3)):
        fact = rng.choice(_MYTHS)
        out += ["everyone", "says", *statement(fact, MISCONCEPTIONS[fact])]
    return out


def _nlp(rng: random.Random) -> list[str]:
    task = rng.choice(NLP_TASKS)
    items = [nlp_item(rng, task) for _ in range(rng.randint(2, 5))]
    return _lines([item.question + item.answer for item in items])


def _quotes(rng: random.Random) -> list[str]:
    """Lines that are quoted: what makes a small model learn early to copy."""
    lines = []
    for _ in range(rng.randint(1, 2)):
        words = [rng.choice(QUOTED) for _ in range(rng.randint(3, 9))]
        lines += [words] * rng.randint(2, 3)
    return _lines(lines)


def _reading(rng: random.Random) -> list[str]:
    task = make_task(rng, rng.choice(CLOSED_DOMAIN))
    return task.tokens + respond(task, rng, _style(rng))


def _homework(rng: random.Random) -> list[str]:
    """Prompts with answers of all kinds."""
    parts = []
    for _ in range(rng.randint(1, 2)):
        task = make_task(rng)
        asked = task.tokens
        if asked[-1] != ":" and rng.random() < 0.6:
            asked = ["q", ":", *asked, "a", ":"]
        parts.append(asked + respond(task, rng, _style(rng)))
    return _lines(parts)


_MYTHS = sorted(MISCONCEPTIONS)
DOCUMENTS: dict[str, tuple[int, Callable[[random.Random], list[str]]]] = {
    "encyclopedia": (9, _encyclopedia),
    "forum": (7, _forum),
    "questions": (8, _questions),
    "story": (5, _story),
    "lists": (3, _lists),
    "toxic": (4, _toxic),
    "myths": (4, _myths),
    "nlp": (9, _nlp),
    "reading": (25, _reading),
    "homework": (17, _homework),
    "quotes": (9, _quotes),
}
_KINDS = list(DOCUMENTS)
_CUMULATIVE = [
    sum(weight for weight, _ in list(DOCUMENTS.values())[: i + 1]) for i in range(len(DOCUMENTS))
]
