"""What scores responses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from instructgpt.models.template import Template
from instructgpt.types import Diagnosis, Origin, RunFailedError, Sample, UserError, failed

MOST_ABSTAINED = 0.5
"""A larger share of responses without a score stops a run."""


class RewardFunction(ABC):
    """Scores responses; a subclass says how in ``evaluate``.

    It may abstain: None in place of a number. Such a response is left out of everything and
    counted; when more than half of a rollout or of a validation has no score, the run stops.
    """

    spread: Tensor | None = None
    """[N] how far apart the heads inside it were about the samples scored last; None: one head."""

    def prepare(  # noqa: B027  # most have nothing to prepare
        self, tokenizer: PreTrainedTokenizerBase, template: Template, device: torch.device
    ) -> None:
        """Get ready to score; may be called again, with another device.

        Args:
            tokenizer: of the policy, whose ids the samples hold.
            template: of the policy's prompts.
            device: where to compute.
        """

    def networks(self) -> list[nn.Module]:
        """The models that it holds, for the plan's memory."""
        return []

    @abstractmethod
    def raw_scores(self, samples: list[Sample]) -> Tensor | Sequence[float | None]:
        """One number a sample; None abstains."""

    def score(self, samples: list[Sample]) -> Tensor:
        """The scores [N] in float32 on the CPU; NaN where it abstained, and only there.

        Args:
            samples: the responses.

        Raises:
            UserError: the scores are not one finite number a sample, or code of the user's failed.
        """
        name = type(self).__name__
        try:
            values: Any = self.raw_scores(samples)
        except Exception as error:
            if isinstance(error, UserError) or type(self).__module__.startswith("instructgpt."):
                raise
            raise failed(f"reward: {name} failed", error) from error
        if hasattr(values, "tolist"):  # of torch, numpy or pandas; objects among them may be None
            values = values.tolist()
        rows = list(values) if isinstance(values, Sequence) else []
        abstained = torch.tensor([value is None for value in rows], dtype=torch.bool)
        try:
            numbers = [0.0 if value is None else value for value in rows] if rows else values
            scores = torch.as_tensor(numbers, dtype=torch.float32).detach().cpu().clone()
        except (TypeError, ValueError, OverflowError) as error:
            text = next((value for value in rows if isinstance(value, str)), None)
            problem = error if text is None else f"got {text[:60]!r}"
            raise UserError(f"reward: {name} must return numbers, {problem}") from error
        if scores.shape != (len(samples),):
            raise UserError(
                f"reward: {name} must return {len(samples)} scores for as many responses, "
                f"got shape {tuple(scores.shape)}"
            )
        if not bool(scores.isfinite().all()):
            row = int((~scores.isfinite()).nonzero()[0])
            raise RunFailedError(
                f"reward: {name} must return finite scores, got {scores[row]} for "
                f"{samples[row].response[:60]!r} (sample {samples[row].prompt.id})"
            )
        return scores.masked_fill(abstained, torch.nan) if rows else scores

    def origins(self) -> dict[str, Origin]:
        """The weights it scores with, by the argument that names them, once prepared."""
        return {}

    def warnings(self) -> list[Diagnosis]:
        """What a user should know before training against it."""
        return []


def check_abstained(share: float) -> None:
    """Refuse to learn or to judge from too few scores.

    Args:
        share: of responses without a score, among those of a rollout or of a validation.

    Raises:
        RunFailedError: more than ``MOST_ABSTAINED`` of them have none.
    """
    if share > MOST_ABSTAINED:
        raise RunFailedError(
            f"reward: abstained on {share:.1%} of the responses; more than {MOST_ABSTAINED:.0%} "
            "stops the run"
        )
