"""Answering prompts inside a stage: for validation, prediction and rollouts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from instructgpt.modules.base import StageModule
from instructgpt.rollout.sampler import Sampling, sample, to_samples
from instructgpt.seeds import mix
from instructgpt.types import PromptBatch, Rollout, Sample

VALIDATION = mix(*b"validation")
"""Seed of sampling outside training: a validation prompt meets the same noise every time."""


def repeat(batch: PromptBatch, responses: int) -> PromptBatch:
    """Every row ``responses`` times in a row, each with its own sampling noise."""
    if responses == 1:
        return batch
    tokens, mask = (t.repeat_interleave(responses, 0) for t in (batch.tokens, batch.mask))
    ids = batch.sample_ids.repeat_interleave(responses) * responses
    ids = ids + torch.arange(responses, device=ids.device).repeat(len(batch.prompts))
    return PromptBatch(tokens, mask, ids, [p for p in batch.prompts for _ in range(responses)])


def roll_out(
    module: StageModule, policy: nn.Module, batch: PromptBatch, sampling: Sampling, phase: int
) -> Rollout:
    """Sample a response to every prompt, with the noise of validation."""
    data = module.data
    return sample(
        policy,
        batch,
        data.max_response_tokens,
        module.template.stop_ids(module.tokenizer),
        sampling,
        VALIDATION,
        phase,
        module.progress,
    )


def respond(
    module: StageModule, policy: nn.Module, batch: PromptBatch, sampling: Sampling, phase: int
) -> tuple[list[Sample], Tensor]:
    """Samples for every row, and which rows are real and not blanks that fill up a batch."""
    rollout = roll_out(module, policy, batch, sampling, phase)
    samples = to_samples(rollout, batch.prompts, module.tokenizer, module.template)
    return samples, (batch.sample_ids >= 0).cpu()


def predict_rows(
    module: StageModule, policy: nn.Module, batch: PromptBatch, sampling: Sampling
) -> list[dict[str, Any]]:
    """One row a prompt with its optional keys and K responses, K = ``--data.responses``."""
    count = module.data.responses
    samples, real = respond(module, policy, repeat(batch, count), sampling, phase=0)
    rows = []
    for i, prompt in enumerate(batch.prompts):
        if real[i * count]:
            group = samples[i * count : (i + 1) * count]
            rows.append(
                prompt.meta
                | prompt.row
                | {
                    "responses": [s.response for s in group],
                    "finished": [s.finished for s in group],
                }
            )
    return rows
