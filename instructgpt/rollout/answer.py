"""Answering prompts K times: the one way of ``generate`` and ``predict``."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from instructgpt.models.template import Template
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.sampler import Texts
from instructgpt.types import Progress, PromptBatch


class Wish(NamedTuple):
    """What is asked for."""

    responses: int  # to each prompt
    max_response_tokens: int
    sampling: Sampling
    seed: int

    @property
    def prompts_a_batch(self) -> int:
        """Prompts that are answered together."""
        return max(1, self.sampling.batch_size // self.responses)


def repeat(batch: PromptBatch, responses: int) -> PromptBatch:
    """Every row ``responses`` times in a row, each with its own sampling noise.

    Args:
        batch: prompts; blank rows, which have a sample id below 0, stay blank.
        responses: to each prompt.
    """
    if responses == 1:
        return batch
    tokens, mask = (t.repeat_interleave(responses, 0) for t in (batch.tokens, batch.mask))
    ids = batch.sample_ids.repeat_interleave(responses) * responses
    ids = ids + torch.arange(responses, device=ids.device).repeat(len(batch.prompts))
    return PromptBatch(tokens, mask, ids, [p for p in batch.prompts for _ in range(responses)])


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
    repeated = repeat(batch, wish.responses)
    texts = Texts(tokenizer, template, wish.max_response_tokens)
    rollout = texts.respond(policy, repeated, wish.sampling, wish.seed, 0, progress)
    ends = texts.samples(rollout, repeated.prompts, wish.sampling)
    rows = []
    for i, (prompt, sample_id) in enumerate(
        zip(batch.prompts, batch.sample_ids.tolist(), strict=True)
    ):
        if sample_id < 0:
            continue
        group = ends[i * wish.responses : (i + 1) * wish.responses]
        texts_of = [one.response for one in group]
        said = {"responses": texts_of, "finished": [one.finished for one in group]}
        rows.append(prompt.meta | prompt.row | said)
    return rows
