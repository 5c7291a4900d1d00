"""Answers to validation prompts, for people to read and for a reward function to score."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from instructgpt.models.template import Template
from instructgpt.modules.base import StageModule
from instructgpt.modules.finite import together
from instructgpt.modules.respond import first, respond
from instructgpt.rewards.base import RewardFunction, check_abstained
from instructgpt.rollout.sampler import Sampling
from instructgpt.types import Origin, PromptBatch, Sample, UserError


class Answers:
    """What a stage needs to answer some of its validation prompts at each validation.

    Args:
        reward: scores the answers, if anything does.
        prompts: how many to answer; 0 switches it off.
        sampling: how answers are drawn.
    """

    def __init__(self, reward: RewardFunction | None, prompts: int, sampling: Sampling) -> None:
        if reward is not None and prompts < 1:
            raise UserError(
                "model.validation_prompts must be >= 1 for model.reward to select a checkpoint, "
                f"got {prompts}"
            )
        self.reward = reward
        self.prompts = prompts
        self.sampling = sampling

    def prepare(
        self, tokenizer: PreTrainedTokenizerBase, template: Template, device: torch.device
    ) -> None:
        """Get the reward function ready; arguments as for ``RewardFunction.prepare``."""
        if self.reward is not None:
            self.reward.prepare(tokenizer, template, device)

    def origins(self) -> dict[str, Origin]:
        """The weights of the reward function, by the argument that names them."""
        origins = self.reward.origins() if self.reward is not None else {}
        return {f"model.reward.{name}": origin for name, origin in origins.items()}

    def give(self, stage: StageModule, policy: nn.Module) -> None:
        """Answer the prompts, show the answers, and log their mean score.

        Args:
            stage: whose validation it is; it shows and logs.
            policy: of the stage.
        """
        if not self.prompts or stage.trainer.sanity_checking:
            return
        with stage.trainer.precision_plugin.val_step_context():
            sums = self._answer_all(stage, policy)
        total, given, count = stage.all_sum(sums).tolist()
        if self.reward is not None and count:
            abstained = (count - given) / count
            check_abstained(abstained)
            stage.log("val/score", total / given, prog_bar=True)
            stage.log("val/abstained", abstained)

    def _answer_all(self, stage: StageModule, policy: nn.Module) -> Tensor:
        """Sum of the scores of this rank's answers, number of scores, number of answers."""
        sums = torch.zeros(3, device=stage.device)
        left = -(-self.prompts // stage.trainer.world_size)
        for batch in stage.data.prompt_dataloader():
            batch = stage.transfer_batch_to_device(first(batch, left), stage.device, 0)
            left -= len(batch.prompts)
            samples, real, values = together(stage, partial(self._answer, stage, policy, batch))
            given = real & ~values.isnan()
            sums += torch.stack([values[given].sum(), given.sum(), real.sum()]).to(sums.device)
            scores = [None if math.isnan(value) else value for value in values.tolist()]
            for row, (sample, score) in enumerate(zip(samples, scores, strict=True)):
                if real[row]:
                    stage.samples.append(
                        {
                            "step": stage.global_step,
                            "prompt": sample.prompt.text,
                            "response": sample.response,
                            "score": score,
                            "tokens": len(sample.response_tokens),
                            "finished": sample.finished,
                        }
                    )
            if left <= 0:
                break
        return sums

    def _answer(
        self, stage: StageModule, policy: nn.Module, batch: PromptBatch
    ) -> tuple[list[Sample], Tensor, Tensor]:
        """Samples, which of them are real, and their scores, NaN without a reward."""
        samples, real = respond(stage, policy, batch, self.sampling, phase=0)
        if self.reward is None:
            return samples, real, torch.full((len(samples),), torch.nan)
        return samples, real, self.reward.score(samples)
