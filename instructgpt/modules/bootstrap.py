"""Samples of the prompts, with repetition, that the heads of an ensemble learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import exp, factorial

import torch
from torch import Tensor

from instructgpt.algorithms.base import RankingAlgorithm
from instructgpt.functional.ranking import correct_shares

MOST = 20
"""Nothing is drawn so often: its probability is 1e-19."""
LIMITS = [sum(exp(-1) / factorial(k) for k in range(n + 1)) for n in range(MOST)]


def bootstrap_counts(prompts: Sequence[str], heads: int, seed: int) -> Tensor:
    """How often each head learns from each prompt, [B, H] int64: on average once.

    Counts are Poisson(1), as those of a bootstrap of many prompts are, and a function of (seed,
    head, prompt) alone: batches, order and ranks do not matter. A prompt that no head has drawn is
    given to one, so that every batch trains something.

    Args:
        prompts: what tells them apart.
        heads: H.
        seed: of the run.

    Examples:
        >>> counts = bootstrap_counts([str(n) for n in range(1000)], 2, seed=0)
        >>> bool((counts.sum(1) > 0).all()), counts.sum().item()  # 2000 and a few
        (True, 2088)
    """
    rows = []
    for prompt in prompts:
        counts = [_poisson(_uniform(seed, head, prompt)) for head in range(heads)]
        if not any(counts):
            counts[int(_uniform(seed, heads, prompt) * heads)] = 1
        rows.append(counts)
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), heads)


def _uniform(seed: int, head: int, prompt: str) -> float:
    digest = hashlib.blake2b(f"{seed} {head} {prompt}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


def _poisson(uniform: float) -> int:
    return next((n for n, limit in enumerate(LIMITS) if uniform < limit), MOST)


def ensemble_loss(
    algorithm: RankingAlgorithm, scores: Tensor, ranking: Tensor, mask: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of all heads on their samples: a prompt counts as often as a head has drawn it.

    Args:
        algorithm: loss on ranked scores.
        scores: [B, K, H].
        ranking: [B, K].
        mask: [B, K] bool.
        counts: [B, H] of ``bootstrap_counts``.

    Returns:
        Sums over prompts and heads, divided by the heads: the loss, its elements, and the share of
        pairs that a head gets right.
    """
    heads = scores.shape[2]
    prompts = torch.arange(len(scores), device=scores.device).repeat_interleave(heads)
    numbers = torch.arange(heads, device=scores.device).repeat(len(scores))
    drawn = counts.flatten().to(scores.device)
    prompts, numbers = prompts.repeat_interleave(drawn), numbers.repeat_interleave(drawn)
    chosen = scores[prompts, :, numbers], ranking[prompts], mask[prompts]
    total, count = algorithm.loss(*chosen)
    right = correct_shares(chosen[0].detach(), *chosen[1:]).sum()
    return total / heads, count / heads, right / heads
