"""What scores responses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from instructgpt.models.template import Template
from instructgpt.types import Sample, UserError


class RewardFunction(ABC):
    """Scores responses; a subclass says how in ``evaluate``."""

    def prepare(  # noqa: B027  # most have nothing to prepare
        self, tokenizer: PreTrainedTokenizerBase, template: Template, device: torch.device
    ) -> None:
        """Get ready to score; may be called again, with another device.

        Args:
            tokenizer: Of the policy, whose ids the samples hold.
            template: Of the policy's prompts.
            device: Where to compute.
        """

    @abstractmethod
    def evaluate(self, samples: list[Sample]) -> Tensor | Sequence[float]:
        """Return one number a sample."""

    def score(self, samples: list[Sample]) -> Tensor:
        """Return the scores [N] in float32 on the CPU.

        Args:
            samples: The responses.

        Raises:
            UserError: The scores are not one finite number a sample.
        """
        name = type(self).__name__
        try:
            scores = torch.as_tensor(self.evaluate(samples), dtype=torch.float32).detach().cpu()
        except (TypeError, ValueError) as error:
            raise UserError(f"reward: {name} must return numbers, {error}") from error
        if scores.shape != (len(samples),):
            raise UserError(
                f"reward: {name} must return {len(samples)} scores for as many responses, "
                f"got shape {tuple(scores.shape)}"
            )
        if not bool(scores.isfinite().all()):
            row = int((~scores.isfinite()).nonzero()[0])
            raise UserError(
                f"reward: {name} must return finite scores, got {scores[row]} for "
                f"{samples[row].response[:60]!r}"
            )
        return scores

    def warnings(self) -> list[str]:
        """Return what a user should know before training against it."""
        return []
