"""What one rollout phase reports: its rollout, sums over its updates, seconds of its parts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from instructgpt.functional.advantages import explained_variance
from instructgpt.functional.logprobs import kl_estimate
from instructgpt.functional.masking import masked_mean
from instructgpt.types import Experience, ScoredRollout


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


def sequence_kl(scored: ScoredRollout, kind: str = "k1") -> Tensor:
    """KL to the reference summed over each response, [N] nats."""
    mask = scored.rollout.response_mask
    kl = kl_estimate(
        scored.logprobs.masked_fill(~mask, 0.0),
        scored.reference_logprobs.masked_fill(~mask, 0.0),
        kind,  # type: ignore[arg-type]
    )
    return kl.sum(1)


def rollout_metrics(
    scored: ScoredRollout, experience: Experience, kl_coef: float, episode_scores: Tensor
) -> dict[str, float]:
    """Means over the rollout of all ranks.

    ``score`` is the reward function's; ``score_episode`` has the missing-EOS rule applied;
    ``score_total`` is that minus the KL penalty; ``kl`` is per response (k1), ``kl_k2`` and
    ``kl_k3`` the other estimators.
    """
    mask = scored.rollout.response_mask
    lengths = mask.sum(1).float()
    kl = sequence_kl(scored)
    means = {
        "score": scored.scores.mean(),
        "score_std": scored.scores.std(correction=0),
        "score_episode": episode_scores.mean(),
        "score_total": (episode_scores - kl_coef * kl).mean(),
        "kl": kl.mean(),
        "kl_k2": sequence_kl(scored, "k2").mean(),
        "kl_k3": sequence_kl(scored, "k3").mean(),
        "entropy": masked_mean(scored.entropy, mask),
        "response_length": lengths.mean(),
        "response_length_max": lengths.max(),
        "eos_rate": scored.rollout.finished.float().mean(),
        "value_mean": masked_mean(experience.values, mask),
        "return_mean": masked_mean(experience.returns, mask),
        "explained_variance": explained_variance(experience.values, experience.returns, mask),
    }
    return {**{name: float(value) for name, value in means.items()}, "kl_coef": kl_coef}


class UpdateSums:
    """Sums over the tokens of a phase's updates, on this rank."""

    def __init__(self, device: torch.device) -> None:
        """Start with nothing."""
        self.device = device
        self.sums: dict[str, Tensor] = {}

    def add(self, parts: dict[str, Tensor], count: Tensor) -> None:
        """Add a micro-batch."""
        for name, value in {**parts, "count": count}.items():
            old = self.sums.get(name, torch.zeros((), device=self.device))
            self.sums[name] = old + value.detach().float()

    def vector(self, names: list[str]) -> Tensor:
        """The sums by name; 0 for what never came."""
        zero = torch.zeros((), device=self.device)
        return torch.stack([self.sums.get(name, zero) for name in names])
