"""The loss of a language model: of demonstrations, of text, and of the second term of eq. 2."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from instructgpt.models.flat import predict
from instructgpt.modules.estimates import Estimates
from instructgpt.types import LanguageBatch


class LanguageLoss(NamedTuple):
    """Sums over the targets, so that those of the pieces of a batch add up."""

    total: Tensor  # cross-entropy in nats
    targets: Tensor  # how many there are
    correct: Tensor  # how many of them are the most likely token


def language_loss(
    policy: nn.Module,
    batch: LanguageBatch,
    estimates: Estimates | None = None,
    beside: bool = False,
) -> LanguageLoss:
    """Cross-entropy of the targets; what is not predicted reaches no head.

    Args:
        policy: a causal language model.
        batch: what it reads, and which tokens of it are predicted.
        estimates: told the loss and the accuracy of each document.
        beside: tell them also by how much the loss is below that without the adapter.
    """
    places = batch.targets.nonzero().squeeze(1)
    said = predict(policy, batch.rows, places, every_id=True)
    targets = said.logprobs.new_tensor(len(places))
    if estimates is not None:
        layout = batch.rows.layout
        documents = layout.segments[places].cpu()
        parts = [torch.ones_like(said.logprobs), -said.logprobs, said.correct.float()]
        if beside:
            before = predict(policy, batch.rows, places, every_id=True, adapter=False)
            parts.append(said.logprobs - before.logprobs)
        each = torch.stack(parts).detach().cpu()
        counts, *sums = each.new_zeros(len(each), len(layout.lengths)).index_add(1, documents, each)
        estimates.add("loss", sums[0], counts)
        estimates.add("accuracy", sums[1], counts, share=True)
        if beside:
            estimates.add("loss_fall", sums[2], counts)
    return LanguageLoss(-said.logprobs.sum(), targets, said.correct.sum())
