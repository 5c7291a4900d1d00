"""The loss of a language model: of demonstrations, of text, and of the second term of eq. 2."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from instructgpt.models.flat import predict
from instructgpt.types import LanguageBatch


class LanguageLoss(NamedTuple):
    """Sums over the targets, so that those of the pieces of a batch add up."""

    total: Tensor  # cross-entropy in nats
    targets: Tensor  # how many there are
    correct: Tensor  # how many of them are the most likely token


def language_loss(policy: nn.Module, batch: LanguageBatch) -> LanguageLoss:
    """Cross-entropy of the targets; what is not predicted reaches no head.

    Args:
        policy: a causal language model.
        batch: what it reads, and which tokens of it are predicted.
    """
    places = batch.targets.nonzero().squeeze(1)
    said = predict(policy, batch.rows, places, every_id=True)
    targets = said.logprobs.new_tensor(len(places))
    return LanguageLoss(-said.logprobs.sum(), targets, said.correct.sum())
