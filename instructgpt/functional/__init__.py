"""Pure functions on tensors: what the algorithms are made of. They need torch and nothing else."""

from instructgpt.functional.advantages import explained_variance, gae
from instructgpt.functional.logprobs import KLEstimator, entropy, kl_estimate, token_logprobs
from instructgpt.functional.losses import (
    PairDivisor,
    cross_entropy_loss,
    decided_pairs,
    kwise_loss,
    mean_over_pairs,
    pair_margins,
    plackett_luce_loss,
    policy_clip_count,
    policy_loss,
    value_clip_count,
    value_loss,
)
from instructgpt.functional.masking import masked_mean, masked_whiten, widen, zero_padding
from instructgpt.functional.rewards import shaped_rewards

__all__ = [
    "KLEstimator",
    "PairDivisor",
    "cross_entropy_loss",
    "decided_pairs",
    "entropy",
    "explained_variance",
    "gae",
    "kl_estimate",
    "kwise_loss",
    "masked_mean",
    "masked_whiten",
    "mean_over_pairs",
    "pair_margins",
    "plackett_luce_loss",
    "policy_clip_count",
    "policy_loss",
    "shaped_rewards",
    "token_logprobs",
    "value_clip_count",
    "value_loss",
    "widen",
    "zero_padding",
]
