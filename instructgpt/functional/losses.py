"""Losses as a sum over real elements and their count.

The caller divides: sums and counts of micro-batches, accumulation steps and ranks add up, means of
means do not.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from instructgpt.functional.masking import widen, zero_padding

PairDivisor = Literal["decided", "all"]


def cross_entropy_loss(logits: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of the real tokens.

    Args:
        logits: [..., V], already aligned: those from which each token is predicted.
        tokens: [...] int64; any number under the mask.
        mask: [...] bool, tokens whose prediction counts.

    Returns:
        Sum in nats and number of tokens, both scalar.

    Examples:
        >>> logits, tokens = torch.zeros(3, 2), torch.tensor([0, 1, -100])
        >>> cross_entropy_loss(logits, tokens, torch.tensor([True, True, False]))
        (tensor(1.3863), tensor(2))
    """
    # Selecting rows spares the softmax over padding, whose gradients are then 0 even if it is NaN.
    return cross_entropy(widen(logits[mask]), tokens[mask], reduction="sum"), mask.sum()


def decided_pairs(ranking: Tensor, mask: Tensor) -> Tensor:
    """Which response was ranked better than which; ties are not decided.

    Args:
        ranking: [B, K] int64, 1 = best, equal = tie.
        mask: [B, K] bool, responses that exist.

    Returns:
        [B, K, K] bool; True at [b, i, j] where response i of prompt b beats response j.

    Examples:
        >>> decided_pairs(torch.tensor([[1, 2, 2]]), torch.tensor([[True, True, True]])).int()
        tensor([[[0, 1, 1],
                 [0, 0, 0],
                 [0, 0, 0]]], dtype=torch.int32)
    """
    return (ranking.unsqueeze(-1) < ranking.unsqueeze(-2)) & mask.unsqueeze(-1) & mask.unsqueeze(-2)


def kwise_loss(
    scores: Tensor, ranking: Tensor, mask: Tensor, divisor: PairDivisor = "decided"
) -> tuple[Tensor, Tensor]:
    """Mean of -log sigmoid(better - worse) over the pairs of a prompt (arXiv:2203.02155, eq. 1).

    A prompt is one element, whatever its K. Ties are dropped; a prompt that is all ties adds 0 and
    is not counted. The paper does not say what ties do to the divisor C(K, 2), hence the choice.

    Args:
        scores: [B, K] of the reward model.
        ranking: [B, K] int64, 1 = best, equal = tie.
        mask: [B, K] bool, responses that exist.
        divisor: ``decided`` divides by the number of the prompt's decided pairs, ``all`` by
            C(K, 2) with the prompt's own K.

    Returns:
        Sum over prompts, and number of prompts with a decided pair, both scalar.

    Raises:
        ValueError: the divisor is unknown.

    Examples:
        >>> scores, ranking = torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[1, 2, 2]])
        >>> mask = torch.tensor([[True, True, True]])
        >>> kwise_loss(scores, ranking, mask)
        (tensor(0.6931), tensor(1))
        >>> kwise_loss(scores, ranking, mask, divisor="all")
        (tensor(0.4621), tensor(1))
    """
    pairs = decided_pairs(ranking, mask)
    decided = pairs.sum((-2, -1))
    match divisor:
        case "decided":
            divide_by = decided
        case "all":
            divide_by = mask.sum(-1) * (mask.sum(-1) - 1) // 2
        case _:
            raise ValueError(f"divisor must be decided or all, got {divisor!r}")
    losses = zero_padding(-logsigmoid(pair_margins(scores, pairs)), pairs).sum((-2, -1))
    return (losses / divide_by.clamp_min(1)).sum(), (decided > 0).sum()


def pair_margins(scores: Tensor, pairs: Tensor) -> Tensor:
    """Score of the better minus score of the worse response of each decided pair, else 0.

    Args:
        scores: [B, K].
        pairs: [B, K, K] bool, as :func:`decided_pairs` returns them.

    Examples:
        >>> pairs = decided_pairs(torch.tensor([[1, 2]]), torch.tensor([[True, True]]))
        >>> pair_margins(torch.tensor([[3.0, 1.0]]), pairs)
        tensor([[[0., 2.],
                 [0., 0.]]])
    """
    scores = widen(scores)
    return zero_padding(scores.unsqueeze(-1) - scores.unsqueeze(-2), pairs)


def mean_over_pairs(losses: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the decided pairs of each prompt: a prompt is one element, whatever its K.

    Args:
        losses: [B, K, K] of each pair.
        pairs: [B, K, K] bool, as :func:`decided_pairs` returns them.

    Returns:
        Sum over prompts, and number of prompts with a decided pair, both scalar.

    Examples:
        >>> pairs = torch.tensor([[[False, True], [False, False]]])
        >>> mean_over_pairs(torch.full((1, 2, 2), 3.0), pairs)
        (tensor(3.), tensor(1))
    """
    decided = pairs.sum((-2, -1))
    sums = zero_padding(losses, pairs).sum((-2, -1))
    return (sums / decided.clamp_min(1)).sum(), (decided > 0).sum()


def plackett_luce_loss(scores: Tensor, ranking: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of a whole ranking (Plackett-Luce; arXiv:2305.18290, appendix A.3).

    Each response is drawn, in proportion to exp(score), from itself and those ranked below it. Of
    responses that tie, none is drawn from a set with the other: a tie says nothing.

    Args:
        scores: [B, K].
        ranking: [B, K] int64, 1 = best, equal = tie.
        mask: [B, K] bool, responses that exist.

    Returns:
        Sum over prompts, and number of prompts with a decided pair, both scalar.

    Examples:
        >>> scores, mask = torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool)
        >>> plackett_luce_loss(scores, torch.tensor([[1, 2, 3]]), mask)  # ln 3 + ln 2
        (tensor(1.7918), tensor(1))
    """
    pairs = decided_pairs(ranking, mask)
    scores = zero_padding(scores, mask)
    below = scores.unsqueeze(-2).masked_fill(~pairs, -torch.inf)
    drawn_from = torch.cat([scores.unsqueeze(-1), below], -1).logsumexp(-1)
    return (drawn_from - scores).sum(), pairs.any((-2, -1)).sum()


def policy_loss(
    new_logprobs: Tensor, logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_range: float
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate, to be minimised (Schulman et al. 2017, arXiv:1707.06347, eq. 7).

    Args:
        new_logprobs: [N, R] of the policy in training.
        logprobs: [N, R] of the policy that sampled.
        advantages: [N, R].
        mask: [N, R] bool, real response tokens.
        clip_range: how far the ratio may leave 1 before it stops paying.

    Returns:
        Sum over tokens and their number, both scalar.

    Examples:
        >>> new, old = torch.tensor([[0.5]]).log(), torch.tensor([[0.25]]).log()
        >>> policy_loss(new, old, torch.tensor([[3.0]]), torch.tensor([[True]]), clip_range=0.2)
        (tensor(-3.6000), tensor(1))
    """
    unclipped, clipped = _policy_terms(new_logprobs, logprobs, advantages, mask, clip_range)
    return torch.maximum(unclipped, clipped).sum(), mask.sum()


def policy_clip_count(
    new_logprobs: Tensor, logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_range: float
) -> Tensor:
    """Number of tokens that the clip of :func:`policy_loss` keeps from passing a gradient.

    Args:
        new_logprobs: [N, R] of the policy in training.
        logprobs: [N, R] of the policy that sampled.
        advantages: [N, R].
        mask: [N, R] bool, real response tokens.
        clip_range: how far the ratio may leave 1 before it stops paying.

    Returns:
        Scalar int64.

    Examples:
        >>> new, old = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.25]]).log()
        >>> advantages, mask = torch.tensor([[3.0, -3.0]]), torch.tensor([[True, True]])
        >>> policy_clip_count(new, old, advantages, mask, clip_range=0.2)
        tensor(1)
    """
    unclipped, clipped = _policy_terms(new_logprobs, logprobs, advantages, mask, clip_range)
    return (clipped > unclipped).sum()


def value_loss(
    new_values: Tensor,
    values: Tensor,
    returns: Tensor,
    mask: Tensor,
    clip_range: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Half the squared error of the values, the worse of clipped and unclipped.

    As in lm-human-preferences (Ziegler et al. 2019, arXiv:1909.08593).

    Args:
        new_values: [N, R] of the value model in training.
        values: [N, R] at the time of the rollout.
        returns: [N, R] targets.
        mask: [N, R] bool, real response tokens.
        clip_range: how far a new value may leave the old one; None does not clip.

    Returns:
        Sum over tokens and their number, both scalar.

    Examples:
        >>> new, old, target = torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([[1.0]])
        >>> value_loss(new, old, target, torch.tensor([[True]]), clip_range=0.5)
        (tensor(0.1250), tensor(1))
    """
    unclipped, clipped = _value_terms(new_values, values, returns, mask, clip_range)
    return torch.maximum(unclipped, clipped).sum(), mask.sum()


def value_clip_count(
    new_values: Tensor,
    values: Tensor,
    returns: Tensor,
    mask: Tensor,
    clip_range: float | None = None,
) -> Tensor:
    """Number of tokens that the clip of :func:`value_loss` keeps from passing a gradient.

    Args:
        new_values: [N, R] of the value model in training.
        values: [N, R] at the time of the rollout.
        returns: [N, R] targets.
        mask: [N, R] bool, real response tokens.
        clip_range: how far a new value may leave the old one; None does not clip.

    Returns:
        Scalar int64.

    Examples:
        >>> new, old, target = torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([[1.0]])
        >>> value_clip_count(new, old, target, torch.tensor([[True]]), clip_range=0.5)
        tensor(1)
    """
    unclipped, clipped = _value_terms(new_values, values, returns, mask, clip_range)
    return (clipped > unclipped).sum()


def _policy_terms(
    new_logprobs: Tensor, logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_range: float
) -> tuple[Tensor, Tensor]:
    # Padding goes before exp: exp(inf) would turn its gradient of 0 into NaN.
    ratio = zero_padding(widen(new_logprobs) - widen(logprobs), mask).exp()
    advantages = zero_padding(advantages, mask)
    return -advantages * ratio, -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)


def _value_terms(
    new_values: Tensor, values: Tensor, returns: Tensor, mask: Tensor, clip_range: float | None
) -> tuple[Tensor, Tensor]:
    new_values, values, returns = (zero_padding(x, mask) for x in (new_values, values, returns))
    unclipped = (new_values - returns).square() / 2
    if clip_range is None:
        return unclipped, unclipped
    clipped = values + (new_values - values).clamp(-clip_range, clip_range)
    return unclipped, (clipped - returns).square() / 2
