"""Answering prompts K times: the one way of ``generate`` and ``predict``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedTokenizerBase

from instructgpt.models.template import Template
from instructgpt.rollout.drawing import Request, Sampling
from instructgpt.rollout.live_text import LiveText
from instructgpt.rollout.sampler import Texts, requests_of, respond
from instructgpt.types import Progress, Prompt, PromptBatch


class Wish(NamedTuple):
    """What is asked for."""

    responses: int  # to each prompt
    max_response_tokens: int
    sampling: Sampling
    seed: int


class Spoken(NamedTuple):
    """A response."""

    text: str
    finished: bool  # ended by itself, not by the limit
    tokens: list[int]  # with what ended it
    logprob: float  # of all tokens, as they were drawn


def answer_rows(
    policy: nn.Module,
    batch: PromptBatch,
    wish: Wish,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """One row a prompt: id, prompt, its optional keys, responses, finished.

    A response is a function of (policy, prompt, seed, sample id, K): not of the batch.

    Args:
        policy: a causal language model, in evaluation mode.
        batch: left-padded prompts on its device; blank rows are left out.
        wish: what is asked for.
        tokenizer: of the policy.
        template: of the policy.
        progress: told how far decoding is.
    """
    asked = zip(batch.prompts, requests_of(batch), strict=True)
    real = [(prompt, request) for prompt, request in asked if request.sample_id >= 0]
    requests = [request for _, request in real]
    found = answers(policy, requests, wish, tokenizer, template, progress)
    return [row_of(prompt, said) for (prompt, _), said in zip(real, found, strict=True)]


def answers(
    policy: nn.Module,
    rows: Sequence[Request],
    wish: Wish,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    progress: Progress | None = None,
) -> Iterator[list[Spoken]]:
    """What is said to each prompt, in the prompts' order.

    All prompts are at hand, so that a waiting one takes the place of any that has ended; a prompt's
    responses come as soon as it and all before it are complete.

    Args:
        policy: a causal language model, in evaluation mode.
        rows: the prompts.
        wish: what is asked for.
        tokenizer: of the policy.
        template: of the policy.
        progress: told how far decoding is.
    """
    count, sampling = wish.responses, wish.sampling
    texts = Texts(tokenizer, template, wish.max_response_tokens)
    how = (texts.ends(sampling), sampling, (wish.seed, 0))
    waiting: dict[int, dict[int, Spoken]] = {}
    first = 0
    for response in respond(policy, _requests(rows, count), *how, progress):
        number, place = divmod(response.number, count)
        said = texts.said(response.tokens, response.finished, sampling)
        whole = Spoken(*said, response.tokens, sum(response.logprobs))
        waiting.setdefault(number, {})[place] = whole
        while len(waiting.get(first, ())) == count:
            ready = waiting.pop(first)
            yield [ready[place] for place in range(count)]
            first += 1


def speak(policy: nn.Module, row: Request, wish: Wish, texts: Texts, live: LiveText) -> None:
    """Write what ``answers`` says to a prompt, while it is drawn.

    Args:
        policy: a causal language model, in evaluation mode.
        row: the prompt.
        wish: what is asked for.
        texts: how responses are written, by the policy's tokenizer and template.
        live: writes them.
    """
    sampling = wish.sampling
    how = (texts.ends(sampling), sampling, (wish.seed, 0), None, live.told)
    for response in respond(policy, _requests([row], wish.responses), *how):
        live.end(response)


def _requests(rows: Sequence[Request], count: int) -> list[Request]:
    """Each prompt some times in a row, with noise of its own."""
    return [row._replace(sample_id=row.sample_id * count + k) for row in rows for k in range(count)]


def row_of(prompt: Prompt, said: Sequence[Spoken]) -> dict[str, Any]:
    """A row of ``generate``: id, prompt, its optional keys, responses, finished.

    Args:
        prompt: that was answered.
        said: the responses.
    """
    responses = {
        "responses": [one.text for one in said],
        "finished": [one.finished for one in said],
    }
    return prompt.meta | prompt.row | responses
