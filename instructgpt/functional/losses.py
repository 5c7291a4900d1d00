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
        ValueError: The divisor is unknown.

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
    scores = widen(scores)
    margins = zero_padding(scores.unsqueeze(-1) - scores.unsqueeze(-2), pairs)
    losses = zero_padding(-logsigmoid(margins), pairs).sum((-2, -1))
    return (losses / divide_by.clamp_min(1)).sum(), (decided > 0).sum()


def policy_loss(
    new_logprobs: Tensor, logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_range: float
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate, to be minimised (Schulman et al. 2017, arXiv:1707.06347, eq. 7).

    Args:
        new_logprobs: [N, R] of the policy in training.
        logprobs: [N, R] of the policy that sampled.
        advantages: [N, R].
        mask: [N, R] bool, real response tokens.
        clip_range: How far the ratio may leave 1 before it stops paying.

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
        clip_range: How far the ratio may leave 1 before it stops paying.

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
        clip_range: How far a new value may leave the old one; None does not clip.

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
        clip_range: How far a new value may leave the old one; None does not clip.

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
