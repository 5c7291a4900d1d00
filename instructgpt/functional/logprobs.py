"""Log-probabilities of tokens, and how far two policies are apart."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from instructgpt.functional.masking import widen, zero_padding

KLEstimator = Literal["k1", "k2", "k3"]


class Readings(NamedTuple):
    """What a network says about tokens."""

    logprobs: Tensor  # [...] nats
    correct: Tensor  # [...] bool: no other id is more likely, and no smaller one as likely
    entropy: Tensor | None  # [...] nats, of the distributions they are from; None: not asked


def read_logits(logits: Tensor, tokens: Tensor, with_entropy: bool = False) -> Readings:
    """All that is asked about tokens, from one softmax.

    Args:
        logits: [..., V], already divided by the temperature.
        tokens: [...] int64, the token that follows each position.
        with_entropy: whether to return the entropy.

    Examples:
        >>> read_logits(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
        Readings(logprobs=tensor([-0.6931]), correct=tensor([True]), entropy=None)
    """
    logprobs = widen(logits).log_softmax(-1)
    return Readings(
        logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1),
        logits.argmax(-1) == tokens,
        _entropy(logprobs) if with_entropy else None,
    )


def token_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of each token under the logits at its position.

    Args:
        logits: [..., V], already divided by the temperature; the softmax is in float32 or better.
        tokens: [...] int64, the token that follows each position.

    Returns:
        [...] nats; -inf where the logit of the token is -inf.

    Examples:
        >>> token_logprobs(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor([-0.6931])
    """
    return widen(logits).log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of each next-token distribution; impossible tokens (logit -inf) add nothing.

    Args:
        logits: [..., V].

    Returns:
        [...] nats.

    Examples:
        >>> entropy(torch.tensor([0.0, 0.0, float("-inf")]))
        tensor(0.6931)
    """
    return _entropy(widen(logits).log_softmax(-1))


def _entropy(logprobs: Tensor) -> Tensor:
    surprise = torch.where(logprobs == -torch.inf, 0.0, -logprobs)  # 0 * inf would be NaN
    return (logprobs.exp() * surprise).sum(-1)


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor, kind: KLEstimator = "k1") -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens sampled by the policy.

    Schulman, "Approximating KL Divergence" (2020, joschu.net/blog/kl-approx.html). With
    d = log policy - log reference: k1 = d (unbiased), k2 = d^2 / 2 (biased, low variance),
    k3 = exp(-d) - 1 + d (unbiased, low variance, never negative).

    Args:
        logprobs: [...] of the policy that sampled the tokens.
        reference_logprobs: [...] of the other policy.
        kind: which estimator.

    Returns:
        [...] nats.

    Raises:
        ValueError: the kind is unknown.

    Examples:
        >>> p, q = torch.tensor([-1.0]), torch.tensor([-1.5])
        >>> [round(kl_estimate(p, q, kind).item(), 4) for kind in ("k1", "k2", "k3")]
        [0.5, 0.125, 0.1065]
    """
    difference = widen(logprobs) - widen(reference_logprobs)
    match kind:
        case "k1":
            return difference
        case "k2":
            return difference.square() / 2
        case "k3":
            # expm1 keeps the digits that exp(-d) - 1 loses while the policies are close.
            return torch.expm1(-difference) + difference
    raise ValueError(f"kind must be k1, k2 or k3, got {kind!r}")


def sequence_kl(
    logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, kind: KLEstimator = "k1"
) -> Tensor:
    """KL to the reference summed over each response, nats.

    Args:
        logprobs: [N, R] of the sampling policy.
        reference_logprobs: [N, R] of the frozen reference.
        mask: [N, R] bool, real response tokens.
        kind: KL estimator.

    Returns:
        [N].

    Examples:
        >>> mask = torch.tensor([[True, True, False]])
        >>> sequence_kl(torch.zeros(1, 3), torch.tensor([[-1.0, -2.0, torch.nan]]), mask)
        tensor([3.])
    """
    ours, theirs = zero_padding(logprobs, mask), zero_padding(reference_logprobs, mask)
    return zero_padding(kl_estimate(ours, theirs, kind), mask).sum(-1)
