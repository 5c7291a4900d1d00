"""What one rollout phase reports: its rollout, sums over its updates, seconds of its parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from instructgpt.algorithms.base import UpdateLoss
from instructgpt.functional.logprobs import KLEstimator, kl_estimate
from instructgpt.functional.masking import masked_mean, zero_padding
from instructgpt.types import ScoredRollout

KL_ESTIMATORS: tuple[KLEstimator, ...] = ("k1", "k2", "k3")
AllReduce = Callable[[Tensor], Tensor]
"""Combines a tensor over the ranks; every rank must call it."""


PER_TOKEN = ("approx_kl", "ratio")
"""What the loop measures itself, whatever the algorithm divides its loss by."""


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


def sequence_kl(
    logprobs: Tensor, reference: Tensor, mask: Tensor, kind: KLEstimator = "k1"
) -> Tensor:
    """KL to the reference summed over each response, [N] nats."""
    return kl_estimate(zero_padding(logprobs, mask), zero_padding(reference, mask), kind).sum(1)


def rollout_metrics(
    scored: ScoredRollout, kl_coef: float, episode_scores: Tensor
) -> dict[str, float]:
    """Means over the rollout of all ranks, without the rows that the reward function abstained on.

    ``score`` is the reward function's; ``score_episode`` has the missing-EOS rule applied;
    ``score_total`` is that minus the KL penalty; ``kl`` is per response (k1), ``kl_k2`` and
    ``kl_k3`` the other estimators. Without a reference there is no KL.
    """
    mask = scored.rollout.response_mask
    kept = mask.any(1)
    scores, episode_scores, lengths = scored.scores[kept], episode_scores[kept], mask[kept].sum(1)
    lengths = lengths.float()
    means = {
        "score": scores.mean(),
        "score_std": scores.std(correction=0),
        "score_episode": episode_scores.mean(),
        "entropy": masked_mean(scored.entropy, mask),
        "response_length": lengths.mean(),
        "response_length_max": lengths.max(),
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


class Updates:
    """What the updates of a phase have done so far, as sums over the tokens of this rank."""

    def __init__(self) -> None:
        """Start before the first update."""
        self.sums: dict[str, Tensor] = {}
        self.window: dict[str, Tensor] = {}  # of the optimizer step under way
        self.first_error = torch.zeros(())  # largest |ratio - 1| in the first update
        self.seconds = 0.0  # of before an interruption
        self.started = time.perf_counter()

    def elapsed(self) -> float:
        """Seconds since the rollout was complete, in all runs that worked on this phase."""
        return self.seconds + time.perf_counter() - self.started

    def add(
        self,
        first: bool,
        logprobs: Tensor,
        new_logprobs: Tensor,
        mask: Tensor,
        loss: UpdateLoss,
        weight: float,
    ) -> None:
        """Record a micro-batch.

        Args:
            first: whether it is of the first update, where every ratio must be 1.
            logprobs: of the policy that sampled, [N, R].
            new_logprobs: of the policy in training, [N, R].
            mask: real response tokens, [N, R].
            loss: of the micro-batch.
            weight: what it adds to the divisor of the loss.
        """
        old, new = (zero_padding(x.detach(), mask) for x in (logprobs, new_logprobs))
        ratio, tokens = zero_padding((new - old).exp(), mask), mask.sum()
        parts = {
            **loss.parts,
            "count": torch.tensor(weight, device=mask.device),
            "tokens": tokens,
            "approx_kl": kl_estimate(old, new, "k3").sum(),  # the old policy sampled: it is first
            "ratio": ratio.sum(),
        }
        if first:
            ratio = (new - old).exp()
            parts |= {"first_ratio": (ratio * mask).sum(), "first_tokens": tokens}
            self.first_error = torch.maximum(
                (ratio - 1).abs().max(), self.first_error.to(mask.device)
            )
        for name, value in parts.items():
            _add(self.window, name, value.detach().to(torch.float32))

    def step(self) -> dict[str, Tensor]:
        """Count the micro-batches of the step just done, and return their sums.

        Those of a step that is interrupted are not in a checkpoint: they come again.
        """
        step, self.window = self.window, {}
        for name, value in step.items():
            _add(self.sums, name, value)
        return step

    def metrics(self, all_sum: AllReduce, all_max: AllReduce) -> dict[str, float]:
        """Means over all updates and ranks: of the loss by weight, of ratio and KL by token."""
        sums = over_ranks(self.sums, all_sum)
        count, tokens = sums.pop("count", 0.0), sums.pop("tokens", 0.0)
        first = sums.pop("first_tokens", 0.0)
        seconds = self.elapsed()
        metrics = {"time/update": seconds}
        metrics["throughput/trained_tokens_per_second"] = tokens / seconds
        if first:
            metrics["ppo/first_ratio"] = sums.pop("first_ratio") / first
            metrics["ppo/first_ratio_error"] = float(all_max(self.first_error))
        for name, value in sums.items():
            prefix = "loss" if name in ("policy", "value") else "ppo"
            divisor = tokens if name in PER_TOKEN else count
            metrics[f"{prefix}/{name}"] = value / divisor if divisor else 0.0
        return metrics

    def state_dict(self, all_sum: AllReduce, all_max: AllReduce) -> dict[str, Any]:
        """Sums over all ranks, for a checkpoint; every rank must call this."""
        return {
            "sums": over_ranks(self.sums, all_sum),
            "first_error": float(all_max(self.first_error)),
            "seconds": self.elapsed(),
        }

    def load_state_dict(self, state: dict[str, Any], first_rank: bool) -> None:
        """Go on; one rank takes the sums of all, so that they add up for any number of ranks."""
        if first_rank:
            self.sums = {name: torch.tensor(value) for name, value in state["sums"].items()}
        self.first_error = torch.tensor(state["first_error"])
        self.seconds = state["seconds"]


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


def _add(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    sums[name] = sums[name].to(value.device) + value if name in sums else value


def over_ranks(sums: dict[str, Tensor], all_sum: AllReduce) -> dict[str, float]:
    """Add sums up over the ranks; names must be the same everywhere."""
    if not sums:
        return {}
    names = sorted(sums)
    return dict(zip(names, all_sum(torch.stack([sums[n] for n in names])).tolist(), strict=True))
