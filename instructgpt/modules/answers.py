"""Answers to validation prompts, for people to read and for a reward function to score."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from instructgpt.modules.base import StageModule
from instructgpt.modules.estimates import Estimates
from instructgpt.modules.finite import together
from instructgpt.modules.means import Means, Parts
from instructgpt.modules.respond import roll_out, texts_of
from instructgpt.modules.sharding import gathered
from instructgpt.rewards.base import RewardFunction, check_abstained
from instructgpt.rollout.drawing import Sampling
from instructgpt.types import PromptBatch, Rollout, RunFailedError, Sample, require


class ValidationAnswers:
    """What a stage needs to answer some of its validation prompts at each validation.

    Args:
        reward: scores the answers, if anything does.
        prompts: how many to answer; 0 switches it off.
        sampling: how answers are drawn.
    """

    def __init__(self, reward: RewardFunction | None, prompts: int, sampling: Sampling) -> None:
        require(
            reward is None or prompts >= 1,
            "model.validation_prompts",
            ">= 1 for model.reward to select a checkpoint",
            prompts,
        )
        self.reward = reward
        self.prompts = prompts
        self.sampling = sampling

    def give(
        self,
        stage: StageModule,
        policy: nn.Module,
        sequence_kl: Callable[[Rollout], Tensor] | None = None,
    ) -> None:
        """Answer the prompts, show the answers, and log their mean score and KL.

        Args:
            stage: whose validation it is; it shows and logs.
            policy: of the stage.
            sequence_kl: of each answer to a reference, if there is one.
        """
        if not self.prompts or stage.trainer.sanity_checking:
            return
        means, estimates = Means(), Estimates()
        with stage.trainer.precision_plugin.val_step_context():
            for batch in stage.data.prompt_dataloader(self.prompts):
                batch = stage.transfer_batch_to_device(batch, stage.device, 0)
                with gathered(stage.trainer, [policy]):
                    respond = partial(roll_out, stage, policy, batch, self.sampling, phase=0)
                    rollout = together(stage, respond)
                kl = None if sequence_kl is None else sequence_kl(rollout)  # of all ranks
                networks = [] if self.reward is None else self.reward.networks()
                with gathered(stage.trainer, networks):
                    answers = together(stage, partial(self._answers, stage, batch, rollout, kl))
                means.add(answers.sums(stage.device))
                answers.tell(estimates)
                stage.samples += answers.rows(stage.global_step)
        found = means.take(stage.all_sum)
        if self.reward is None:
            found = {name: value for name, value in found.items() if name == "kl"}
        check_abstained(found.get("abstained", 0.0))
        for name, value in found.items():
            stage.log(f"val/{name}", value, prog_bar=name == "score")
        known = estimates.take(stage.trainer)
        stage.say_intervals("val", {name: known[name] for name in found if name in known})

    def _answers(
        self, stage: StageModule, batch: PromptBatch, rollout: Rollout, kl: Tensor | None
    ) -> Answered:
        if kl is not None and not bool(kl.isfinite().all()):
            raise RunFailedError("the KL to the reference of a sampled answer is not finite")
        samples = texts_of(stage).samples(rollout, batch.prompts, self.sampling)
        nothing = torch.full((len(samples),), torch.nan)
        return Answered(
            samples,
            (batch.sample_ids >= 0).cpu(),
            nothing if self.reward is None else self.reward.score(samples),
            nothing if kl is None else kl.float().cpu(),
        )


class Answered(NamedTuple):
    """Answers to a batch of prompts."""

    samples: list[Sample]
    real: Tensor  # [N] bool; the others fill up the batch
    scores: Tensor  # [N], NaN without a reward or where it abstained
    kl: Tensor  # [N] to the reference, NaN without one

    def sums(self, device: torch.device) -> Parts:
        """Of all real answers: scores, which of them have none, and KL."""
        given, known = self.real & ~self.scores.isnan(), self.real & ~self.kl.isnan()
        parts = {
            "score": (self.scores[given].sum(), given.sum()),
            "abstained": ((self.real & ~given).sum(), self.real.sum()),
            "kl": (self.kl[known].sum(), known.sum()),
        }
        return {name: (a.to(device), b.to(device)) for name, (a, b) in parts.items()}

    def tell(self, estimates: Estimates) -> None:
        """Add score and KL of each real answer."""
        for name, values in (("score", self.scores), ("kl", self.kl)):
            estimates.add(name, values[self.real & ~values.isnan()].cpu())

    def rows(self, step: int) -> list[dict[str, Any]]:
        """What is shown of the real answers."""
        rows = []
        for sample, real, score, kl in zip(
            self.samples, self.real.tolist(), self.scores.tolist(), self.kl.tolist(), strict=True
        ):
            if real:
                row = {
                    "step": step,
                    "prompt": sample.prompt.text,
                    "response": sample.response,
                    "score": None if math.isnan(score) else score,
                    "tokens": len(sample.response_tokens),
                    "finished": sample.finished,
                }
                rows.append(row if math.isnan(kl) else row | {"kl": kl})
        return rows
