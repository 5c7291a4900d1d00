"""What changes from phase to phase of a run: one state, which a checkpoint holds whole."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from instructgpt.algorithms.kl import KLController
from instructgpt.rollout.buffer import RolloutBuffer
from instructgpt.rollout.ema import WeightAverage

PER_TOKEN = ("approx_kl", "ratio")
"""What the loop measures itself, whatever the algorithm divides its loss by."""
SAVED = ("kl_coef", "last_kl", "value_only", "stopped", "open", "metrics", "sums", "first_error")


@dataclass
class Phase:
    """Where a run stands in its rollouts; the same on every rank.

    Args:
        kl: sets the weight of the KL penalty from phase to phase.
        recorded: the log-probabilities to compare with are those that sampling recorded.
        average: of the policy's weights, if one is kept.
    """

    kl: KLController
    recorded: bool = False
    average: WeightAverage | None = None
    buffer: RolloutBuffer | None = None  # None before the first rollout
    kl_coef: float = field(init=False)
    last_kl: float | None = None  # of the rollout before, if any, where there is a reference
    value_only: bool = False  # the policy stands still
    stopped: bool = False  # by the target KL: the rest of the updates are no-ops
    open: bool = False  # updates are still to come
    metrics: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)  # over all updates so far and all ranks
    first_error: float = 0.0  # largest |ratio - 1| in the first update
    untold: bool = True  # no progress bar shows this rollout, also where a run goes on
    seconds: float = 0.0  # of updates before an interruption
    begun: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        """Start with the first weight."""
        self.kl_coef = self.kl.initial

    @property
    def current(self) -> RolloutBuffer:
        """The rollout that is learned from; there is one whenever there are updates."""
        assert self.buffer is not None
        return self.buffer

    def holds(self, number: int) -> bool:
        """Whether the rollout of a phase is complete."""
        return self.buffer is not None and self.buffer.phase == number

    def news(self) -> dict[str, float]:
        """What a progress bar shows of the rollout, once."""
        untold, self.untold = self.untold, False
        names = {"ppo/score": "score", "ppo/kl": "kl"} if untold else {}
        return {to: self.metrics[name] for name, to in names.items() if name in self.metrics}

    def adapt_kl_coef(self, episodes: int) -> None:
        """Set the weight of the KL penalty for the next rollout.

        Args:
            episodes: of a rollout, over all ranks.
        """
        if self.last_kl is not None:
            self.kl_coef = self.kl.update(self.kl_coef, self.last_kl, episodes)

    def begin(self, buffer: RolloutBuffer, metrics: dict[str, float], value_only: bool) -> None:
        """Take a rollout: its updates are to come.

        Args:
            buffer: what they learn from.
            metrics: of the rollout, by the name they are logged under.
            value_only: the policy does not learn.
        """
        self.value_only = value_only
        self.buffer, self.metrics, self.last_kl = buffer, metrics, metrics.get("ppo/kl")
        self.stopped, self.open, self.sums, self.first_error = False, True, {}, 0.0
        self.untold, self.seconds, self.begun = True, 0.0, time.perf_counter()

    def add(self, sums: dict[str, float], target_kl: float | None) -> None:
        """Count an update, and stop the phase where it went too far.

        Args:
            sums: over all ranks: ``count`` (what the loss is divided by), ``tokens``, and others;
                parts of the loss by the name that they are logged under.
            target_kl: approximate KL to the sampling policy that stops it, nats per token.
        """
        if not self.sums:
            names = ("tokens", "ratio", "approx_kl")
            sums = {**sums, **{f"first_{name}": sums[name] for name in names}}
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if target_kl is not None:
            self.stopped = sums["approx_kl"] / max(sums["tokens"], 1.0) > target_kl

    def end(self, episodes: int) -> dict[str, float]:
        """Close the phase and return all its metrics: means of the loss by weight, others by token.

        Args:
            episodes: of a rollout, over all ranks.
        """
        self.open = False
        sums = dict(self.sums)
        count, tokens = sums.pop("count", 0.0), sums.pop("tokens", 0.0)
        first, ratio, kl = (sums.pop(f"first_{n}", 0.0) for n in ("tokens", "ratio", "approx_kl"))
        seconds = self._elapsed()
        metrics = {"time/update": seconds, "ppo/stopped": float(self.stopped)}
        metrics["throughput/trained_tokens_per_second"] = tokens / seconds
        if first:
            metrics |= {"ppo/first_ratio": ratio / first, "ppo/first_ratio_error": self.first_error}
            if self.recorded:  # ratios are to the pass that sampled
                metrics["ppo/sampler_kl"] = kl / first
        for name, value in sums.items():
            key, divisor = (f"ppo/{name}", tokens) if name in PER_TOKEN else (name, count)
            metrics["loss/loss" if name == "loss" else key] = value / divisor if divisor else 0.0
        self.metrics |= metrics
        spent = sum(value for name, value in self.metrics.items() if name.startswith("time/"))
        made = self.metrics["ppo/response_length"] * episodes
        self.metrics["throughput/tokens_per_second"] = made / spent
        return self.metrics

    def _elapsed(self) -> float:
        """Seconds since the rollout was complete, in all runs that worked on this phase."""
        return self.seconds + time.perf_counter() - self.begun

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and tensors, so that a checkpoint loads with ``weights_only=True``."""
        return {
            **{name: getattr(self, name) for name in SAVED},
            "kl_initial": self.kl.initial,
            "seconds": self._elapsed(),
            "buffer": None if self.buffer is None else self.buffer.state_dict(),
            "average": None if self.average is None else dict(self.average.weights),
        }

    def load_state_dict(self, state: dict[str, Any], experience_type: type) -> None:
        """Go on where a checkpoint was written.

        Args:
            state: of it.
            experience_type: of the algorithm.
        """
        asked = self.kl_coef
        for name in SAVED:
            setattr(self, name, state[name])
        if state["kl_initial"] != self.kl.initial:
            self.kl_coef = asked  # another one is asked for, from the next phase on
        self.seconds, self.begun = state["seconds"], time.perf_counter()
        if self.average is not None:
            self.average.weights = state["average"]
        if state["buffer"] is not None:
            self.buffer = RolloutBuffer.from_state_dict(state["buffer"], experience_type)
