"""Answering prompts inside a stage: for validation, prediction and rollouts."""

from __future__ import annotations

from typing import Any

from torch import nn

from instructgpt.modules.base import StageModule
from instructgpt.rollout.answer import Wish, answer_rows
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.sampler import Texts
from instructgpt.seeds import mix
from instructgpt.types import PromptBatch, Rollout

VALIDATION = mix(*b"validation")
"""Seed of sampling in validation: a prompt meets the same noise every time."""


def roll_out(
    module: StageModule, policy: nn.Module, batch: PromptBatch, sampling: Sampling, phase: int
) -> Rollout:
    """Sample a response to every prompt, with the noise of validation."""
    texts = Texts(module.tokenizer, module.template, module.data.max_response_tokens)
    return texts.respond(policy, batch, sampling, VALIDATION, phase, module.progress)


def predict_rows(
    module: StageModule, policy: nn.Module, batch: PromptBatch, sampling: Sampling
) -> list[dict[str, Any]]:
    """The rows that ``generate`` would write with the seed of the run."""
    data = module.data
    wish = Wish(data.responses, data.max_response_tokens, sampling, data.seed)
    return answer_rows(policy, batch, wish, module.tokenizer, module.template, module.progress)
