"""Ranked responses as a policy sees them: log-probabilities, scores, and what is logged of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instructgpt.algorithms.preference import Candidates, ResponseLogprobs
from instructgpt.functional.lengths import in_order, length_groups
from instructgpt.functional.logprobs import token_logprobs
from instructgpt.models.forward import run
from instructgpt.modules.means import Parts
from instructgpt.types import ComparisonBatch


def response_mask(batch: ComparisonBatch) -> Tensor:
    """Real tokens of each response, counted from its first, [S, R] bool."""
    lengths = batch.response_mask.sum(1)
    places = torch.arange(max(1, int(lengths.amax())), device=lengths.device)
    return places < lengths[:, None]


def candidate_logprobs(policy: nn.Module, batch: ComparisonBatch, adapter: bool = True) -> Tensor:
    """Log-probability of each token of each response, [S, R]; 0 where there is none.

    Args:
        policy: a causal language model.
        batch: prompts with responses, right-padded.
        adapter: False switches adapters off, which gives the reference of an adapted policy.
    """
    lengths, real = batch.mask.sum(1), response_mask(batch)
    prompts = lengths - batch.response_mask.sum(1)
    groups, parts = length_groups(lengths), []
    for group in groups:
        width, start = int(lengths[group].amax()), int(prompts[group].amin())
        tokens, mask = batch.tokens[group, :width], batch.mask[group, :width]
        # The logits of a position are about the next token: the first response token needs those
        # of the last prompt token.
        logits = run(policy, tokens, mask, keep=width - start + 1, adapter=adapter).logits[:, :-1]
        targets = batch.response_mask[group, start:width]
        found = token_logprobs(logits[targets], tokens[:, start:][targets])
        parts.append(found.new_zeros(len(group), real.shape[1]).masked_scatter(real[group], found))
    return in_order(parts, groups)


def candidates(batch: ComparisonBatch, responses: ResponseLogprobs, scores: Tensor) -> Candidates:
    """The responses of each prompt beside each other.

    Args:
        batch: of prompts.
        responses: of all prompts, [S, R].
        scores: of all responses, [S].
    """
    return Candidates(
        scores[batch.rows],
        responses.sums[batch.rows],
        batch.response_lengths,
        batch.ranking,
        batch.ranking_mask,
    )


def chosen_and_rejected(found: Candidates) -> Parts:
    """Scores and log-probabilities of winners and losers of decided pairs, or of good and bad rows.

    Args:
        found: of the prompts of a batch.
    """
    pairs = found.pairs
    alone = found.mask & (found.mask.sum(1, keepdim=True) == 1)
    sides = {
        "chosen": pairs.sum(2) + (alone & (found.ranking == 1)),
        "rejected": pairs.sum(1) + (alone & (found.ranking == 2)),
    }
    columns = {"rewards": found.scores, "logprobs": found.logprobs}
    return {
        f"{column}/{side}": ((values.detach().float() * weight).sum(), weight.sum())
        for column, values in columns.items()
        for side, weight in sides.items()
    }


def accuracy_and_margin(found: Candidates) -> Parts:
    """How many decided pairs the scores get right, an equal score half, and by how much.

    Args:
        found: of the prompts of a batch.
    """
    pairs, margins = found.pairs, found.margins.detach()
    right = ((margins > 0) + 0.5 * (margins == 0)) * pairs
    return {"accuracy": (right.sum(), pairs.sum()), "margin": (margins.sum(), pairs.sum())}
