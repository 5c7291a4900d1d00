"""Ranked responses as a policy sees them: log-probabilities, scores, and what is logged of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instructgpt.algorithms.preference import Candidates, ResponseLogprobs
from instructgpt.functional.layout import Layout
from instructgpt.models.flat import predict
from instructgpt.modules.means import Parts
from instructgpt.types import ComparisonBatch, FlatRows


def response_logprobs(policy: nn.Module, rows: FlatRows, adapter: bool = True) -> Tensor:
    """Log-probabilities of the tokens of all responses, one response behind the other, [M].

    Args:
        policy: a causal language model.
        rows: each prompt once, before its responses.
        adapter: False switches adapters off, which gives the reference of an adapted policy.
    """
    continues = (rows.layout.parents >= 0).repeat_interleave(rows.layout.lengths)
    places = continues.nonzero().squeeze(1).to(rows.tokens.device)
    return predict(policy, rows, places, adapter=adapter).logprobs


def in_columns(layout: Layout, logprobs: Tensor, reference: Tensor | None) -> ResponseLogprobs:
    """The log-probabilities of each response in a row of their own.

    Args:
        layout: of the rows that they were computed for.
        logprobs: of the policy, [M] as from ``response_logprobs``.
        reference: the same of the reference, if there is one.
    """
    lengths = layout.lengths[layout.parents >= 0]
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).to(logprobs.device)

    def columns(values: Tensor) -> Tensor:
        return values.new_zeros(mask.shape).masked_scatter(mask, values)

    return ResponseLogprobs(
        columns(logprobs), None if reference is None else columns(reference), mask
    )


def candidates(batch: ComparisonBatch, responses: ResponseLogprobs, scores: Tensor) -> Candidates:
    """The responses of each prompt beside each other.

    Args:
        batch: of prompts.
        responses: of all prompts, [S, R].
        scores: of all responses, [S].
    """
    continues = batch.rows.layout.parents >= 0
    numbers = (continues.cumsum(0) - 1).clamp_min(0).to(scores.device)[batch.responses]
    return Candidates(
        scores[numbers],
        responses.sums[numbers],
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
