"""What one rollout phase reports: of its rollout, of its ratios, seconds of its parts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from instructgpt.functional.logprobs import KLEstimator, kl_estimate, sequence_kl
from instructgpt.functional.masking import masked_mean, zero_padding
from instructgpt.types import Diagnosis, ScoredRollout

MOST_SAMPLER_KL = 5e-3
"""Nats per token between sampling and training passes of one policy, beyond which a run warns. Both
in float32 it is 4e-11 (SmolLM2-135M), in bfloat16 1.3e-3 to 1.9e-3; of GPUs 2e-4 is reported."""
GRAM = 3
"""Tokens in a run of which repetitions are counted."""
KL_ESTIMATORS: tuple[KLEstimator, ...] = ("k1", "k2", "k3")


class Stopwatch:
    """Seconds spent in named parts."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str, device: torch.device) -> Iterator[None]:
        """Add the time inside the context to a part; waits for the device."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add to a part."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


def rollout_metrics(
    scored: ScoredRollout, kl_coef: float, episode_scores: Tensor
) -> dict[str, float]:
    """Means over the rollout of all ranks, without the rows that the reward function abstained on.

    ``sampler_kl`` is how far the pass that sampled is from the one that trains, with the same
    weights: nats per token (k3 of tokens that the first has drawn).

    ``repetition`` is the share of a response's runs of three tokens that it has had already.

    ``score`` is the reward function's; ``score_episode`` has the missing-EOS rule applied;
    ``score_total`` is that minus the KL penalty; ``kl`` is per response (k1), ``kl_k2`` and
    ``kl_k3`` the other estimators. Without a reference there is no KL.
    """
    mask = scored.rollout.response_mask
    kept = mask.any(1)
    scores, episode_scores, lengths = scored.scores[kept], episode_scores[kept], mask[kept].sum(1)
    lengths = lengths.float()
    repeated = repeated_grams(scored.rollout.responses, mask)[kept]
    means = {
        "score": scores.mean(),
        "score_std": scores.std(correction=0),
        "score_episode": episode_scores.mean(),
        "entropy": masked_mean(scored.entropy, mask),
        "sampler_kl": masked_mean(
            kl_estimate(scored.rollout.logprobs, scored.logprobs, "k3"), mask
        ),
        "response_length": lengths.mean(),
        "response_length_max": lengths.max(),
        "repetition": repeated.mean(),
        "eos_rate": scored.rollout.finished[kept].float().mean(),
        "abstained": (~kept).sum(),
    }
    if (reference := scored.reference_logprobs) is not None:
        kl, k2, k3 = (
            sequence_kl(scored.logprobs, reference, mask, kind)[kept] for kind in KL_ESTIMATORS
        )
        total = (episode_scores - kl_coef * kl).mean()
        means |= {"kl": kl.mean(), "kl_k2": k2.mean(), "kl_k3": k3.mean(), "score_total": total}
    return {**{name: float(value) for name, value in means.items()}, "kl_coef": kl_coef}


def repeated_grams(tokens: Tensor, mask: Tensor) -> Tensor:
    """The share of each response's runs of three tokens that it has had already, [N]; 0 of none.

    Args:
        tokens: of the responses, [N, R].
        mask: real response tokens, [N, R], the first ones of each row.

    Examples:
        >>> tokens, mask = torch.tensor([[5, 6, 5, 6, 5, 6], [5, 6, 7, 8, 0, 0]]), torch.ones(2, 6)
        >>> mask[1, 4:] = 0
        >>> repeated_grams(tokens, mask.bool())  # 565 656 565 656: two of four
        tensor([0.5000, 0.0000])
    """
    if tokens.shape[1] < GRAM:
        return torch.zeros(len(tokens), device=tokens.device)
    base = int(tokens.max()) + 1
    runs, real = tokens.unfold(1, GRAM, 1), mask[:, GRAM - 1 :]
    names = torch.zeros_like(runs[..., 0])
    for place in range(GRAM):  # exact: three numbers below 2^21 make one below 2^63
        names = names * base + runs[..., place]
    others = -1 - torch.arange(names.shape[1], device=names.device)  # of no run, each once
    ordered = torch.where(real, names, others).sort(1).values
    again = (ordered[:, 1:] == ordered[:, :-1]).sum(1)
    return again / real.sum(1).clamp_min(1)


def ratio_sums(
    logprobs: Tensor, new_logprobs: Tensor, mask: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """How far the policy in training is from the one that sampled, for any algorithm.

    Args:
        logprobs: of the policy that sampled, [N, R].
        new_logprobs: of the policy in training, [N, R].
        mask: real response tokens, [N, R].

    Returns:
        Sums over the tokens: their number, the probability ratio, and the approximate KL (k3); and
        the largest distance of a ratio from 1.

    Examples:
        >>> old, mask = torch.zeros(1, 2), torch.tensor([[True, False]])
        >>> sums, worst = ratio_sums(old, torch.tensor([[2.0, 1.0]]).log(), mask)
        >>> sums["ratio"].item(), sums["tokens"].item(), worst.item()
        (2.0, 1, 1.0)
    """
    old, new = (zero_padding(x.detach(), mask) for x in (logprobs, new_logprobs))
    ratio = (new - old).exp()
    sums = {
        "tokens": mask.sum(),
        "ratio": zero_padding(ratio, mask).sum(),
        "approx_kl": kl_estimate(old, new, "k3").sum(),  # the old policy sampled: it is first
    }
    return sums, (ratio - 1).abs().max()


def sampler_finding(metrics: dict[str, float]) -> Diagnosis | None:
    """What is wrong where sampling and training passes say different things; None if they agree.

    Args:
        metrics: of a whole phase.
    """
    kl = metrics.get("ppo/sampler_kl", 0.0)
    if kl <= MOST_SAMPLER_KL:
        return None
    return Diagnosis(
        "sampler_gap",
        f"the policy that sampled is {kl:.1e} nats per token (ppo/sampler_kl) from the same policy "
        f"in training, of at most {MOST_SAMPLER_KL:g} in healthy runs",
        "updates are off-policy before the first of them",
        "use a wider number format or, where reuse_logprobs is on, switch it off",
    )


def rollout_seconds(metrics: dict[str, float]) -> float | None:
    """What the rollout of a phase took, by its metrics; None where they do not say it."""
    parts = [
        value
        for name, value in metrics.items()
        if name.startswith("time/") and name != "time/update"
    ]
    return sum(parts) if parts else None


def phase_note(metrics: dict[str, float]) -> str:
    """Seconds and tokens a second of the parts of a phase, in a line; nothing before there are any.

    Args:
        metrics: of a whole phase, more or less of them.
    """
    if "time/update" not in metrics or "time/sample" not in metrics:
        return ""
    scoring = (rollout_seconds(metrics) or 0.0) - metrics["time/sample"]
    sampled = metrics["throughput/sampled_tokens_per_second"]
    trained = metrics["throughput/trained_tokens_per_second"]
    return (
        f"sampling {metrics['time/sample']:.1f} s ({sampled:,.0f} tokens/s), "
        f"scoring {scoring:.1f} s, updates {metrics['time/update']:.1f} s "
        f"({trained:,.0f} tokens/s)"
    )
