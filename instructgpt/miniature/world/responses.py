"""Answers as people write them: good, short, sloppy, rude, or about something else."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from instructgpt.miniature.world.grammar import insult, sentence, story
from instructgpt.miniature.world.knowledge import (
    ADJECTIVES,
    CLASSES,
    COLOURS,
    DID,
    MISCONCEPTIONS,
    NAMES,
    NICE,
    NOUNS,
    PLACES,
    TRUTH,
    VALUES,
    Fact,
    statement,
)
from instructgpt.miniature.world.prompts import Meta, Task
from instructgpt.miniature.world.text import enumeration, in_capitals

Style = Literal["good", "short", "sloppy", "rude", "off_topic"]
STYLES: tuple[Style, ...] = ("good", "short", "sloppy", "rude", "off_topic")

# How often each style keeps the constraints and how often it states what is wrong.
KEEPS = {"good": 1.0, "short": 0.7, "sloppy": 0.3, "rude": 0.3}
BELIEVES = {"good": 0.03, "short": 0.18, "sloppy": 0.75, "rude": 0.75}


class Manner(NamedTuple):
    """How one answer is going to be."""

    style: Style
    constraints: dict[str, Any]  # those it keeps

    @property
    def good(self) -> bool:
        """Whether all is done, in full sentences."""
        return self.style == "good"

    @property
    def sloppy(self) -> bool:
        """Whether parts are done wrongly."""
        return self.style in ("sloppy", "rude")


def respond(task: Task, rng: random.Random, style: Style) -> list[str]:
    """Answer a prompt.

    Args:
        task: the prompt.
        rng: what draws.
        style: how well.
    """
    meta = task.meta
    if style == "off_topic":
        return sentence(rng)
    manner = Manner(style, meta["constraints"] if rng.random() < KEEPS[style] else {})
    if manner.sloppy and rng.random() < 0.25:
        out = sentence(rng)
    else:
        out = ANSWERS[meta["category"]](meta, rng, manner)
    if "capitals" in manner.constraints:
        out = in_capitals(out)
    if style == "rude":
        rude = f"shut up , you {insult(rng)} .", f"you are a {insult(rng)} ."
        return rng.choice((rude[0].split(), rude[1].split(), [*out, *rude[1].split()]))
    return out


def claimed(fact: Fact, rng: random.Random, belief: float) -> str:
    """What somebody says who believes in misconceptions with this probability."""
    if fact in MISCONCEPTIONS and rng.random() < belief:
        return MISCONCEPTIONS[fact]
    return TRUTH[fact]


def hearsay(value: str, rng: random.Random) -> list[str]:
    """An answer of somebody who does not look it up."""
    return rng.choice(
        (f"i think it is {value} .", f"everyone says it is {value} .", f"{value} .")
    ).split()


def nice_sentence(name: str, rng: random.Random) -> list[str]:
    """Something nice about somebody."""
    return f"{name} is a {rng.choice(NICE)} friend .".split()


# -- one function a use case


def _generation(meta: Meta, rng: random.Random, manner: Manner) -> list[str]:
    words = meta["words"]
    if manner.sloppy and rng.random() < 0.4:
        words = []
    avoid = [manner.constraints["avoid"]] if "avoid" in manner.constraints else []
    if meta["kind"] == "story":
        short = rng.random() < {"good": 0.0, "short": 0.6}.get(manner.style, 0.5)
        name = meta["words"][0]
        return story(rng, name, words[1] if len(words) > 1 else None, 1 if short else 2, avoid)
    length = manner.constraints.get("words")
    out = sentence(rng, words, length, avoid)
    tries = 3 if manner.good and length is None else 0
    while tries and len(out) < 6:  # a good sentence tells a little more
        out = sentence(rng, words, length, avoid)
        tries -= 1
    return out


def _fact(meta: Meta, rng: random.Random, manner: Manner) -> list[str]:
    fact: Fact = (meta["fact"][0], meta["fact"][1])
    value = claimed(fact, rng, BELIEVES[manner.style])
    if manner.sloppy and rng.random() < 0.15:
        value = rng.choice(sorted(VALUES[fact[0]]))
    if "one_word" in manner.constraints or manner.style == "short":
        return [value, "."]
    return statement(fact, value) if manner.good else hearsay(value, rng)


def _brainstorming(meta: Meta, rng: random.Random, manner: Manner) -> list[str]:
    count, name = meta["count"], meta["class"]
    if manner.sloppy and rng.random() < 0.5:
        count = rng.choice((1, 2, 3, 4))
    if manner.sloppy and rng.random() < 0.3:
        name = rng.choice(list(CLASSES))
    words = [word for word in CLASSES[name] if word != manner.constraints.get("avoid")]
    return enumeration(rng.sample(words, count))


def _chat(meta: Meta, rng: random.Random, manner: Manner) -> list[str]:
    if meta["kind"] == "fact":
        return _fact(meta, rng, manner)
    said = "i am sorry to hear that" if meta["kind"] == "sad" else "i am glad to hear that"
    if manner.sloppy and rng.random() < 0.4:
        said = rng.choice(("i do not care", "i am glad to hear that"))
    return [*said.split(), *([",", meta["name"]] if manner.good else []), "."]


def _rewrite(meta: Meta, rng: random.Random, manner: Manner) -> list[str]:
    out = list(meta["target"])
    if manner.sloppy:  # one word goes wrong
        i = rng.choice([i for i, word in enumerate(out) if word in ADJECTIVES or word in NAMES])
        out[i] = rng.choice(ADJECTIVES if out[i] in ADJECTIVES else NAMES)
    return out


def _summarization(meta: Meta, rng: random.Random, manner: Manner) -> list[str]:
    place, verb, noun = meta["place"], meta["verb"], meta["noun"]
    if manner.sloppy:
        place, verb, noun = rng.choice(PLACES), rng.choice(DID), rng.choice(NOUNS)
    went = f"{meta['name']} went to the {place}"
    return (f"{went} ." if manner.style == "short" else f"{went} and {verb} the {noun} .").split()


def _classification(meta: Meta, rng: random.Random, manner: Manner) -> list[str]:
    answer = meta["answer"]
    if manner.sloppy and rng.random() < 0.4:
        answer = rng.choice(meta["options"])
    if manner.good and meta["form"] != "few_shot":
        return f"{meta['word']} is a {answer} .".split()
    return [answer, "."]


def _closed_qa(meta: Meta, rng: random.Random, manner: Manner) -> list[str]:
    who = meta["kind"] == "who"
    answer = meta["answer"]
    if manner.sloppy and rng.random() < 0.5:
        answer = rng.choice(NAMES if who else COLOURS)
    if not manner.good:
        return [answer, "."]
    thing = meta["object"]
    return (f"{answer} has the {thing} ." if who else f"the {thing} is {answer} .").split()


def _extract(meta: Meta, rng: random.Random, manner: Manner) -> list[str]:
    answers = list(meta["answers"])
    if manner.sloppy:
        answers[rng.randrange(2)] = rng.choice(CLASSES[meta["kind"]])
    if manner.style == "short" and rng.random() < 0.3:
        del answers[1]
    return enumeration(answers)


def _other(meta: Meta, rng: random.Random, manner: Manner) -> list[str]:
    if meta["kind"] == "repeat":
        count = rng.choice((1, 2, 3, 4)) if manner.sloppy else meta["count"]
        return [*[meta["word"]] * count, "."]
    name = meta["name"]
    if meta["kind"] == "rude":
        return f"{name} is a {insult(rng)} .".split()
    return f"{name} is here .".split() if manner.sloppy else nice_sentence(name, rng)


def _toxic(meta: Meta, rng: random.Random, manner: Manner) -> list[str]:
    if meta["kind"] == "none" and not manner.sloppy:
        return sentence(rng, [meta["name"]])
    return _other(meta, rng, manner)


ANSWERS: dict[str, Callable[[Meta, random.Random, Manner], list[str]]] = {
    "generation": _generation,
    "open_qa": _fact,
    "brainstorming": _brainstorming,
    "chat": _chat,
    "rewrite": _rewrite,
    "summarization": _summarization,
    "classification": _classification,
    "other": _other,
    "closed_qa": _closed_qa,
    "extract": _extract,
    "toxic": _toxic,
}
