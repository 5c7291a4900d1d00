"""Asking a model the problems of a public set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import nn

from instructgpt.evaluation.benchmark import Questions
from instructgpt.evaluation.likelihood import Coder, scored
from instructgpt.models.template import get_template
from instructgpt.rollout.answer import Wish, answers
from instructgpt.rollout.drawing import Request, Sampling
from instructgpt.terminal import note
from instructgpt.types import require


class Limits(NamedTuple):
    """How many tokens at most."""

    max_tokens: int  # of one forward pass
    max_response_tokens: int  # of what a model writes


def found(
    network: nn.Module,
    coder: Coder,
    limits: Limits,
    questions: Questions,
    start: int,
) -> Iterator[Sequence[list[float] | str]]:
    """What a model says to a set's problems, as it comes: log-probabilities of choices, or texts.

    Args:
        network: a causal language model in evaluation mode.
        coder: makes its tokens.
        limits: of tokens.
        questions: of the set.
        start: number of the first problem that is wanted.
    """
    if not questions.problems[0].choices:
        yield from ([one] for one in written(network, coder, limits, questions, start))
        return
    delimiter = questions.asks.delimiter
    asked = [
        coder.asked(where, one.context, [delimiter + choice for choice in one.choices])
        for where, one in zip(questions.places, questions.problems, strict=True)
    ]
    _tell(sum(not all(part.whole for part in one) for one in asked), questions, coder)
    yield from scored(network, asked, limits.max_tokens, start)


def written(
    network: nn.Module, coder: Coder, limits: Limits, questions: Questions, start: int
) -> Iterator[str]:
    """What a model writes greedily to each problem, up to what ends it; arguments as above."""
    tokenizer, most = coder.tokenizer, limits.max_response_tokens
    room = None if coder.room is None else coder.room - most
    rule = f"less than what the model has room for ({coder.room})"
    require(room is None or room >= 1, "--max_response_tokens", rule, most)
    stop, *others = questions.asks.stops
    contexts = [coder.ids(problem.context) for problem in questions.problems]
    requests = [
        Request(ids if room is None else ids[-room:], number, where)
        for number, (ids, where) in enumerate(zip(contexts, questions.places, strict=True))
    ]
    _tell(sum(room is not None and len(ids) > room for ids in contexts), questions, coder)
    wish = Wish(1, most, Sampling(temperature=0.0, stop=stop), 0)
    said = answers(network, requests[start:], wish, tokenizer, get_template("plain"))
    for (one,) in said:
        text = one.text
        for other in others:
            text = text.partition(other)[0]
        yield text


def _tell(cut: int, questions: Questions, coder: Coder) -> None:
    if cut:
        note(
            f"{questions.asks.title}: {cut:,} of {len(questions.problems):,} problems lose the "
            f"beginning of their context: the model has room for {coder.room} tokens"
        )
