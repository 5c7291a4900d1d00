"""The rows of every file of the miniature world; the package shows one example of each."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

from instructgpt.miniature.world.knowledge import HELD_OUT, MISCONCEPTIONS, TRUTH
from instructgpt.miniature.world.prompts import (
    CLOSED_DOMAIN,
    TOXIC_KINDS,
    Mix,
    Task,
    few_shot_prefix,
    make_task,
    toxic_task,
    without_greeting,
)
from instructgpt.miniature.world.responses import Style, respond
from instructgpt.miniature.world.tasks import NLP_TASKS, nlp_prompt
from instructgpt.miniature.world.text import to_text
from instructgpt.miniature.world.web import web_document

Row = dict[str, Any]
Make = Callable[[random.Random], Task]
Split = Literal["training", "validation", "evaluation"]

EVALUATION_SHARE, VALIDATION_SHARE = 0.2, 0.1  # of all prompt texts, by hash
TRIES = 30  # to find a prompt that a set does not have yet


class Sizes(NamedTuple):
    """How many rows there are of each kind."""

    documents: int
    validation_documents: int
    demonstrations: int
    validation_demonstrations: int
    label_prompts: int
    rl_prompts: int
    validation_prompts: int
    general: int
    closed: int  # of each closed-domain use case
    truth: int
    toxic: int  # of each instruction
    nlp: int  # of each task


class People(NamedTuple):
    """Who asks, and how well demonstrations are written."""

    mix: Mix
    toxic_share: float  # of prompts that begin with rude sentences
    good_share: float
    short_share: float


def files(seed: int, sizes: Sizes, people: People) -> dict[str, list[Row]]:
    """Make the rows of every file.

    Args:
        seed: of all that is drawn. A file depends on it and on its own sizes only.
        sizes: how many rows.
        people: who asks and who demonstrates.
    """
    evaluation = list(_evaluation(seed, sizes, people.mix))
    validation = sizes.validation_demonstrations
    return {
        "text": _documents(seed, "text", sizes.documents),
        "text_validation": _documents(seed, "text_validation", sizes.validation_documents),
        "demonstrations": _demonstrations(seed, sizes.demonstrations, "training", people),
        "demonstrations_validation": _demonstrations(seed, validation, "validation", people),
        "prompts_label": _prompts(seed, "label", sizes.label_prompts, people),
        "prompts_rl": _prompts(seed, "rl", sizes.rl_prompts, people),
        "prompts_validation": _prompts(seed, "validation", sizes.validation_prompts, people),
        "evaluation": [row for row, _ in evaluation],
        "evaluation_few_shot": [
            {**row, "prompt": to_text(few_shot_prefix(task.tokens))} for row, task in evaluation
        ],
        "nlp": list(_nlp(seed, sizes.nlp)),
    }


def misconceptions() -> list[Row]:
    """What people wrongly believe, and whether no prompt of the training asks about it."""
    return [
        {
            "relation": fact[0],
            "subject": fact[1],
            "true": TRUTH[fact],
            "believed": believed,
            "held_out": fact in HELD_OUT,
        }
        for fact, believed in MISCONCEPTIONS.items()
    ]


def split_of(tokens: list[str]) -> Split:
    """What a prompt may be used for, by the hash of its request; who asks makes no difference."""
    request = to_text(without_greeting(tokens))
    digest = hashlib.blake2b(request.encode(), digest_size=4).digest()
    place = int.from_bytes(digest, "big") / 2**32
    if place < EVALUATION_SHARE:
        return "evaluation"
    return "validation" if place < EVALUATION_SHARE + VALIDATION_SHARE else "training"


def draw(rng: random.Random, count: int, split: Split | None, make: Make) -> Iterator[Task]:
    """Draw prompts of one split; outside training no prompt twice, as far as there are others.

    Args:
        rng: what draws.
        count: how many.
        split: which prompts may be used; None: any.
        make: makes one prompt.
    """
    seen: set[str] = set()
    for _ in range(count):
        for _ in range(TRIES):
            task, text = _of_split(rng, split, make)
            if split == "training" or text not in seen:
                break
        seen.add(text)
        yield task


def _of_split(rng: random.Random, split: Split | None, make: Make) -> tuple[Task, str]:
    while True:
        task = make(rng)
        if split in (None, split_of(task.tokens)):
            return task, to_text(task.tokens)


def _rng(seed: int, name: str) -> random.Random:
    """What draws one part of the world, whatever the sizes of the others."""
    return random.Random(f"{seed} {name}")


def _asked(mix: Mix, toxic_share: float = 0.0) -> Make:
    """What people ask: use cases, and rude sentences with any request or none."""

    def make(rng: random.Random) -> Task:
        if rng.random() < toxic_share:
            return toxic_task(rng, rng.choice(TOXIC_KINDS))
        return make_task(rng, mix=mix, known="trained")

    return make


def _row(name: str, task: Task, **more: Any) -> Row:
    prompt, category = to_text(task.tokens), task.meta["category"]
    return {"id": name, "prompt": prompt, **more, "category": category, "meta": task.meta}


def _documents(seed: int, name: str, count: int) -> list[Row]:
    rng = _rng(seed, name)
    return [{"text": to_text(web_document(rng))} for _ in range(count)]


def _demonstrations(seed: int, count: int, split: Split, people: People) -> list[Row]:
    """Prompts with answers of mixed quality."""
    rng = _rng(seed, f"demonstrations {split}")
    styles: tuple[Style, ...] = ("good", "short", "sloppy")
    good, short = people.good_share, people.short_share
    rows = []
    for i, task in enumerate(draw(rng, count, split, _asked(people.mix))):
        style = rng.choices(styles, (good, short, 1 - good - short))[0]
        response = to_text(respond(task, rng, style))
        rows.append(_row(f"demonstration-{split}-{i}", task, response=response, style=style))
    return rows


def _prompts(seed: int, name: str, count: int, people: People) -> list[Row]:
    split: Split = "validation" if name == "validation" else "training"
    make = _asked(people.mix, people.toxic_share)
    tasks = draw(_rng(seed, name), count, split, make)
    return [_row(f"{name}-{i}", task) for i, task in enumerate(tasks)]


def _evaluation(seed: int, sizes: Sizes, mix: Mix) -> Iterator[tuple[Row, Task]]:
    """The prompts that decide, set by set."""
    parts: list[tuple[str, str, int, Make]] = [("general", "", sizes.general, _asked(mix))]
    for category in CLOSED_DOMAIN:
        asked = partial(make_task, category=category, known="trained")
        parts.append(("closed", f"-{category}", sizes.closed, asked))
    asked = partial(make_task, category="open_qa", known="held_out")
    parts.append(("truth", "", sizes.truth, asked))
    for kind in TOXIC_KINDS:
        parts.append((f"toxic_{kind}", "", sizes.toxic, partial(toxic_task, kind=kind)))
    for name, part, count, make in parts:
        # No prompt of the training asks for a held-out fact, so that all that do may be used.
        split: Split | None = None if name == "truth" else "evaluation"
        tasks = draw(_rng(seed, name + part), count, split, make)
        for i, task in enumerate(tasks):
            yield _row(f"{name}{part}-{i}", task, set=name), task


def _nlp(seed: int, count: int) -> Iterator[Row]:
    """Items of the public NLP tasks, with two solved ones in front."""
    for task in NLP_TASKS:
        name = f"nlp_{task}"
        rng = _rng(seed, name)
        for i in range(count):
            item = nlp_prompt(rng, task)
            yield {
                "id": f"{name}-{i}",
                "prompt": to_text(item.question),
                "category": "nlp",
                "set": name,
                "meta": {"category": "nlp", "kind": task, "answer": to_text(item.answer)},
            }
