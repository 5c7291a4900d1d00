"""An algorithm, a reward function and a data format from outside the package, by class path.

    python -m instructgpt fit --config examples/own.yaml

``examples.own.Reinforce`` is found because the current directory can be imported from. A file of
your own may lie anywhere on PYTHONPATH: ``--model.algorithm my_file.MyAlgorithm``.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from instructgpt import (
    RewardFunction,
    Rollout,
    RolloutAlgorithm,
    RowFormat,
    Sample,
    ScoredRollout,
    UpdateLoss,
    UserError,
)
from instructgpt.functional import kl_estimate, masked_mean, zero_padding


class Weighed(NamedTuple):
    """What Reinforce learns from: responses, and how much better than average each was."""

    rollout: Rollout
    advantages: Tensor  # [N]


@dataclass(frozen=True)
class Reinforce(RolloutAlgorithm):
    """REINFORCE (Williams 1992) with the mean reward of a rollout as its baseline; no value model.

    Args:
        baseline: subtract the mean reward of the rollout.
    """

    uses_value: ClassVar[bool] = False
    uses_reference: ClassVar[bool] = True
    experience_type: ClassVar[type] = Weighed

    baseline: bool = True

    @torch.no_grad()
    def experience(self, scored: ScoredRollout, kl_coef: float) -> Weighed:
        """The reward of each response, its KL penalty subtracted, above the baseline."""
        mask = scored.rollout.response_mask
        kl = kl_estimate(scored.logprobs, scored.reference_logprobs, self.kl_estimator)
        scores = self.episode_scores(scored.scores, scored.rollout.finished)
        rewards = scores - kl_coef * zero_padding(kl, mask).sum(1)
        has_score = mask.any(1)  # a row that the reward function abstained on has no tokens
        baseline = masked_mean(rewards, has_score) if self.baseline else 0.0
        return Weighed(scored.rollout, rewards - baseline)

    def row_weights(self, batch: Weighed) -> Tensor:
        """1 a response: the loss is a mean over responses, not over tokens."""
        return batch.rollout.response_mask.any(1).float()

    def loss(self, batch: Weighed, new_logprobs: Tensor, new_values: Tensor | None) -> UpdateLoss:
        """Minus advantage times log-likelihood, summed over the responses."""
        likelihood = zero_padding(new_logprobs, batch.rollout.response_mask).sum(1)
        total = -(batch.advantages * likelihood).sum()
        return UpdateLoss(total, {"policy": total.detach()})


class Mentions(RewardFunction):
    """Half a point for each of some words that the response has.

    Args:
        words: to be found, capitals as written.
    """

    def __init__(self, words: list[str]) -> None:
        if not words:
            raise UserError("reward.words must not be empty")
        self.words = words

    def raw_scores(self, samples: list[Sample]) -> list[float]:
        """The points."""
        said = [sample.response.rstrip(".").split() for sample in samples]
        return [0.5 * sum(word in response for word in self.words) for response in said]


class Quiz(RowFormat):
    """Rows ``{"question": str, "right": str, "wrong": [str]}``; wrong answers are equally bad."""

    def convert(self, row: dict[str, Any]) -> dict[str, Any]:
        """A comparison, of which the other stages use the prompt or the best response."""
        wrong = row["wrong"]
        return {
            "prompt": row["question"],
            "responses": [row["right"], *wrong],
            "ranking": [1] + [2] * len(wrong),
        }
