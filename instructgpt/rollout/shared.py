"""Scoring a rollout of all ranks: each scores the rows that it will train on first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from instructgpt.algorithms.base import RolloutAlgorithm
from instructgpt.models.shard_calls import is_spread
from instructgpt.rollout.gather import gather_rows
from instructgpt.rollout.learn import trained_rows
from instructgpt.rollout.metrics import Stopwatch
from instructgpt.rollout.scoring import Networks, score
from instructgpt.rollout.updates import UpdatePlan
from instructgpt.types import Progress, Rollout, ScoredRollout


@dataclass(frozen=True)
class SharedScoring:
    """What scores the rollouts of a run.

    The first pass of the updates computes micro-batches that were computed here, on the same rank,
    so that its ratios are exactly 1 until the first step.

    Args:
        networks: what is asked.
        algorithm: which rows are learned from.
        plan: of the updates.
        recorded: take the log-probabilities that sampling recorded.
        temperature: that responses are sampled with.
        all_gather: a tensor of each rank to one with a dimension more, [ranks, ...].
        progress: told how far a part is.
    """

    networks: Networks
    algorithm: RolloutAlgorithm
    plan: UpdatePlan
    recorded: bool
    temperature: float
    all_gather: Callable[[Tensor], Any]
    progress: Progress

    def score(
        self, rollout: Rollout, scores: Tensor, number: int, kl_coef: float, watch: Stopwatch
    ) -> tuple[ScoredRollout, Tensor]:
        """What the networks say about a rollout, and which rows of it are learned from.

        Args:
            rollout: of all ranks.
            scores: of the reward function.
            number: of the phase.
            kl_coef: weight of the KL penalty, reward per nat.
            watch: gets the seconds of the parts.
        """
        everyone, ranks = torch.arange(len(scores)), range(self.plan.world_size)
        all_learned = self.plan.rows == len(scores)
        items = [self.plan.first_pass(number, rank) for rank in ranks]
        shares = items if all_learned else [[part] for part in everyone.chunk(len(ranks))]
        columns = self._ask(self.networks, rollout, shares, watch)
        scored = ScoredRollout(
            rollout,
            scores,
            columns["logprobs"],
            columns.get("reference_logprobs"),
            columns.get("values"),
            columns["entropy"],
        )
        rows = trained_rows(self.algorithm, scored, kl_coef)
        if torch.equal(rows.cpu(), everyone) or self.recorded:
            return scored, rows
        # Others than the updates were planned for, or in another order: once more, as they will be.
        again = [[rows.cpu()[item] for item in theirs] for theirs in items]
        columns = self._ask(self.networks._replace(reference=None), rollout, again, watch)
        for name in ("logprobs", "values"):
            if name in columns:
                whole = getattr(scored, name).index_copy(0, rows.sort().values, columns[name])
                scored = scored._replace(**{name: whole})
        return scored, rows

    def _ask(
        self,
        networks: Networks,
        rollout: Rollout,
        shares: Sequence[Sequence[Tensor]],
        watch: Stopwatch,
    ) -> dict[str, Tensor]:
        """Ask about the rows that each rank has, item by item; the rows come back in order."""
        lengths, cut = rollout.mask.sum(1).cpu(), self.plan.micro_batches
        each = [[part for item in items for part in cut(item, lengths)] for items in shares]
        parts = each[self.plan.rank]
        # Where layers are gathered one by one, every rank must ask equally often.
        more = max(map(len, each)) - len(parts) if is_spread(networks.policy) else 0
        asked = (self.temperature, self.recorded, watch, self.progress, more)
        columns = score(networks, rollout, parts, *asked)
        orders = [torch.cat(list(items)) for items in shares]
        return gather_rows(columns, orders, self.all_gather)
