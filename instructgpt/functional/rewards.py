"""From one score per response to one reward per token."""

from __future__ import annotations

import torch
from torch import Tensor

from instructgpt.functional.logprobs import KLEstimator, kl_estimate
from instructgpt.functional.masking import widen, zero_padding


def shaped_rewards(
    scores: Tensor,
    logprobs: Tensor,
    reference_logprobs: Tensor,
    mask: Tensor,
    kl_coef: float,
    kind: KLEstimator = "k1",
) -> Tensor:
    """Per-token rewards: minus the KL penalty at every token, plus the score at the last one.

    The bracket of eq. 2 of InstructGPT (arXiv:2203.02155, section 3.5), spread over tokens as in
    Ziegler et al. 2019 (arXiv:1909.08593).

    Args:
        scores: [N], one per response.
        logprobs: [N, R] of the sampling policy.
        reference_logprobs: [N, R] of the frozen reference.
        mask: [N, R] bool, real response tokens (EOS is one).
        kl_coef: weight of the penalty, reward per nat.
        kind: KL estimator, see :func:`~instructgpt.functional.logprobs.kl_estimate`.

    Returns:
        [N, R]; 0 at padding, and in rows without tokens.

    Examples:
        >>> mask = torch.tensor([[True, True, False]])
        >>> logprobs = torch.tensor([[-1.0, -1.0, 0.0]])
        >>> reference = torch.tensor([[-2.0, -1.0, 0.0]])
        >>> shaped_rewards(torch.tensor([3.0]), logprobs, reference, mask, kl_coef=0.5)
        tensor([[-0.5000,  3.0000,  0.0000]])
    """
    kl = kl_estimate(zero_padding(logprobs, mask), zero_padding(reference_logprobs, mask), kind)
    penalty = zero_padding(-kl_coef * kl, mask)  # again, so that padding is +0, not -0
    remaining = mask.flip(-1).cumsum(-1).flip(-1)  # real tokens from here on: 1 at the last
    return torch.where(mask & (remaining == 1), penalty + widen(scores).unsqueeze(-1), penalty)
