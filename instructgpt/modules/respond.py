"""Answering prompts inside a stage: for validation, prediction and rollouts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from instructgpt.modules.base import StageModule
from instructgpt.modules.finite import together
from instructgpt.modules.sharding import gathered
from instructgpt.modules.tensor_ranks import agreed
from instructgpt.rewards.base import RewardFunction, check_abstained
from instructgpt.rollout.answer import Wish, answer_rows
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.gather import gather
from instructgpt.rollout.metrics import Stopwatch
from instructgpt.rollout.prompts import PhasePrompts
from instructgpt.rollout.sampler import Texts
from instructgpt.row_shares import place_of
from instructgpt.seeds import mix
from instructgpt.types import PromptBatch, Rollout

VALIDATION = mix(*b"validation")
"""Seed of sampling in validation: a prompt meets the same noise every time."""


def roll_out(
    module: StageModule, policy: nn.Module, batch: PromptBatch, sampling: Sampling, phase: int
) -> Rollout:
    """Sample a response to every prompt, with the noise of validation."""
    how = (sampling, VALIDATION, phase, module.progress)
    return texts_of(module).respond(policy, batch, *how)


def texts_of(module: StageModule) -> Texts:
    """How a stage writes prompts and responses."""
    return Texts(module.tokenizer, module.template, module.data.max_response_tokens)


def scored_responses(
    module: StageModule,
    prompts: PhasePrompts,
    number: int,
    policy: nn.Module,
    texts: Texts,
    sampling: Sampling,
    seed: int,
    reward: RewardFunction,
    watch: Stopwatch,
) -> tuple[Rollout, Tensor, dict[str, float]]:
    """The responses of a phase with their scores, of all ranks, and how sure the scores are.

    Args:
        module: whose phase it is.
        prompts: of all phases.
        number: of the phase.
        policy: that responds, in evaluation mode.
        texts: how prompts and responses are written.
        sampling: how responses are drawn.
        seed: of sampling.
        reward: that scores them.
        watch: gets the seconds of the parts.
    """
    place, device = place_of(module.trainer), module.device
    asked = prompts.share(number, *place)
    asked = module.transfer_batch_to_device(asked, device, 0)
    context = module.trainer.precision_plugin.forward_context
    with watch.part("sample", device), gathered(module.trainer, [policy]), context():
        how = (sampling, seed, number, module.progress)
        rollout = together(module, lambda: texts.respond(policy, asked, *how))
    with watch.part("reward", device), gathered(module.trainer, reward.networks()):
        samples = texts.samples(rollout, asked.prompts, sampling)
        scores = together(module, lambda: reward.score(samples)).to(device)
    scores = agreed(module.trainer, scores)
    apart = {}
    if reward.spread is not None:
        known = reward.spread.to(device)
        total, count = module.all_sum(torch.stack([known.sum(), known.new_tensor(len(known))]))
        apart["ppo/disagreement"] = float(total / count)
    rollout, scores = gather(rollout, scores, module.all_gather, place.ranks)
    check_abstained(float(scores.isnan().float().mean()))
    return rollout, scores, apart


def predict_rows(
    module: StageModule, policy: nn.Module, batch: PromptBatch, sampling: Sampling
) -> list[dict[str, Any]]:
    """The rows that ``generate`` would write with the seed of the run."""
    data = module.data
    wish = Wish(data.responses, data.max_response_tokens, sampling, data.seed)
    return answer_rows(policy, batch, wish, module.tokenizer, module.template, module.progress)
