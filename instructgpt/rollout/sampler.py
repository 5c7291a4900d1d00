"""Sampling responses from a policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from instructgpt.models.template import Template
from instructgpt.rollout.drawing import Ends, Request, Response, Sampling, StopText, Told
from instructgpt.rollout.engine import engine_of
from instructgpt.types import Progress, Prompt, PromptBatch, Rollout, Sample


def sample(
    model: nn.Module,
    batch: PromptBatch,
    max_response_tokens: int,
    stop_ids: Sequence[int],
    sampling: Sampling,
    seed: int,
    phase: int = 0,
    progress: Progress | None = None,
    stop_text: StopText | None = None,
) -> Rollout:
    """Respond to prompts; a response is a function of (policy, prompt, seed, phase, sample id).

    Args:
        model: a causal language model, in evaluation mode.
        batch: left-padded prompts.
        max_response_tokens: limit of a response, EOS included.
        stop_ids: tokens that end a response.
        sampling: how to draw, and how many at once.
        seed: of the run.
        phase: number of the rollout phase.
        progress: told how many tokens are drawn, of the most there can be.
        stop_text: ends a response, too.
    """
    ends = Ends(max_response_tokens, stop_ids, stop_text)
    requests = requests_of(batch)
    responses: list[Response | None] = [None] * len(requests)
    for response in respond(model, requests, ends, sampling, (seed, phase), progress):
        responses[response.number] = response
    return rollout_of(batch, [one for one in responses if one is not None])


def respond(
    model: nn.Module,
    requests: Sequence[Request],
    ends: Ends,
    sampling: Sampling,
    names: tuple[int, int],
    progress: Progress | None = None,
    told: Told | None = None,
) -> Iterator[Response]:
    """The responses to requests as they end, in no order.

    Args:
        model: a causal language model, in evaluation mode.
        requests: any number.
        ends: what ends a response.
        sampling: how to draw, and how many at once.
        names: of the noise: seed of the run and number of the phase.
        progress: told how many tokens are drawn, of the most there can be.
        told: of every token, as it is drawn.
    """
    if not requests:
        return
    most, done = len(requests) * ends.limit, 0

    def heard(numbers: Tensor, tokens: Tensor) -> None:
        nonlocal done
        done += len(numbers)
        if progress is not None:
            progress("sample", min(done, most), most)
        if told is not None:
            told(numbers, tokens)

    engine = engine_of(sampling)
    listener = None if progress is None and told is None else heard
    for some in engine.respond(model, requests, ends, sampling, names, listener):
        done += sum(ends.limit - len(response.tokens) for response in some)
        yield from some
    if progress is not None:
        progress("sample", most, most)


def requests_of(batch: PromptBatch) -> list[Request]:
    """What is asked for, from padded rows."""
    rows, ids = batch.tokens.cpu(), batch.sample_ids.tolist()
    return [
        Request(row[real].tolist(), name, prompt.id)
        for row, real, name, prompt in zip(rows, batch.mask.cpu(), ids, batch.prompts, strict=True)
    ]


def rollout_of(batch: PromptBatch, responses: Sequence[Response]) -> Rollout:
    """Prompts with their responses, right-padded.

    Args:
        batch: left-padded prompts.
        responses: one to each, in order.
    """
    width = max(len(response.tokens) for response in responses)
    mask = torch.zeros(len(responses), width, dtype=torch.bool)
    tokens, logprobs = (torch.zeros_like(mask, dtype=t) for t in (torch.int64, torch.float32))
    for row, response in enumerate(responses):
        count = len(response.tokens)
        mask[row, :count] = True
        tokens[row, :count] = torch.tensor(response.tokens)
        logprobs[row, :count] = torch.tensor(response.logprobs)
    recorded = [response.support for response in responses if response.support is not None]
    support = torch.zeros(*mask.shape, recorded[0].shape[1] if recorded else 0, dtype=torch.uint8)
    for row, sets in enumerate(recorded):
        support[row, : len(sets)] = sets
    finished = torch.tensor([response.finished for response in responses])
    device = batch.tokens.device
    made = (x.to(device) for x in (mask, finished, logprobs, support))
    return Rollout(torch.cat([batch.tokens, tokens.to(device)], dim=1), batch.mask, *made)


def to_samples(
    rollout: Rollout,
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    stop: str = "",
    least: int = 0,
) -> list[Sample]:
    """A rollout as text and token lists, one sample a row, for reward functions and for people.

    Args:
        rollout: on any device.
        prompts: of its rows.
        tokenizer: of the policy.
        template: of the policy.
        stop: text at which a response ends; "" = none.
        least: tokens among which that text ends nothing.
    """
    rollout = Rollout(*(field.cpu() for field in rollout))
    prompt_rows = rollout.tokens[:, : rollout.prompt_mask.shape[1]]
    lengths = rollout.response_mask.sum(1).tolist()
    finished = rollout.finished.tolist()
    samples = []
    for i, prompt in enumerate(prompts):
        response = rollout.responses[i, : lengths[i]].tolist()
        text, ended = said(tokenizer, template, response, finished[i], stop, least)
        samples.append(
            Sample(
                prompt=prompt,
                response=text,
                prompt_tokens=prompt_rows[i][rollout.prompt_mask[i]].tolist(),
                response_tokens=response,
                finished=ended,
            )
        )
    return samples


def said(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    tokens: Sequence[int],
    finished: bool,
    stop: str = "",
    least: int = 0,
) -> tuple[str, bool]:
    """The text of a response up to that at which it ends, and whether it is finished.

    Args:
        tokenizer: of the policy.
        template: of the policy.
        tokens: of the response.
        finished: whether they ended by themselves.
        stop: text at which a response ends; "" = none.
        least: tokens among which that text ends nothing.
    """
    text = template.decode_response(tokenizer, tokens)
    counts = template.decode_response(tokenizer, tokens[least:]) if stop and least else text
    if not stop or stop not in counts:
        return text, finished
    return text[: len(text) - len(counts) + counts.index(stop)], True


class Texts(NamedTuple):
    """How prompts and responses are written, and how long a response may be."""

    tokenizer: PreTrainedTokenizerBase
    template: Template
    max_response_tokens: int

    def respond(
        self,
        policy: nn.Module,
        prompts: PromptBatch,
        sampling: Sampling,
        seed: int,
        phase: int,
        progress: Progress | None,
    ) -> Rollout:
        """Respond to prompts; arguments as for ``sample``."""
        ends = self.ends(sampling)
        how = (ends.ids, sampling, seed, phase, progress, ends.text)
        return sample(policy, prompts, ends.limit, *how)

    def ends(self, sampling: Sampling) -> Ends:
        """What ends a response."""
        text = StopText(sampling.stop, self.tokenizer) if sampling.stop else None
        return Ends(self.max_response_tokens, self.template.stop_ids(self.tokenizer), text)

    def samples(
        self, rollout: Rollout, prompts: Sequence[Prompt], sampling: Sampling
    ) -> list[Sample]:
        """A rollout as reward functions see it."""
        how = (self.tokenizer, self.template, sampling.stop, sampling.min_response_tokens)
        return to_samples(rollout, prompts, *how)

    def said(self, tokens: Sequence[int], finished: bool, sampling: Sampling) -> tuple[str, bool]:
        """The text of a response, and whether it is finished; arguments as for ``said``."""
        how = (finished, sampling.stop, sampling.min_response_tokens)
        return said(self.tokenizer, self.template, tokens, *how)
