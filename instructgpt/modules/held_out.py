"""What the answers of a policy to held-out prompts are worth, over all batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from instructgpt.modules.estimates import Estimates
from instructgpt.rewards.base import check_abstained
from instructgpt.types import PromptBatch, Rollout, Sample

NAMES = ("score", "kl", "response_length", "eos_rate", "greedy_score", "greedy_eos_rate")


class HeldOut(nn.Module):
    """Means over held-out prompts, sampled and greedy.

    Args:
        with_kl: whether there is a reference to measure a KL to.
        with_judge: whether somebody judges beside the reward.
    """

    def __init__(self, with_kl: bool, with_judge: bool = False) -> None:
        super().__init__()
        names = [name for name in (*NAMES, "abstained") if with_kl or name != "kl"]
        names += ["judge", "greedy_judge"] if with_judge else []
        self.estimates = Estimates()
        self.means = nn.ModuleDict({name: MeanMetric() for name in names})

    def add(
        self,
        kind: str,
        batch: PromptBatch,
        rollout: Rollout,
        samples: Sequence[Sample],
        said: tuple[Tensor, Tensor | None],
        kl: Tensor | None,
    ) -> list[dict[str, Any]]:
        """Count the answers to a batch, and return those to real prompts, for people.

        Args:
            kind: sampled or greedy.
            batch: what was asked; blank rows fill it up.
            rollout: what was answered.
            samples: the answers as text.
            said: scores of the reward function, and of a judge if there is one; NaN where they
                abstained, [B].
            kl: to the reference, nats per response, [B], if it was measured.
        """
        scores, judged = said
        scores = scores.to(batch.sample_ids.device)
        real = batch.sample_ids >= 0
        scored = real & ~scores.isnan()
        prefix = "greedy_" if kind == "greedy" else ""
        self._mean("abstained", scores[real].isnan())
        self._mean(f"{prefix}score", scores[scored])
        self._mean(f"{prefix}eos_rate", rollout.finished[scored])
        if kind == "sampled":
            self._mean("response_length", rollout.response_mask[scored].sum(1))
        if kl is not None:
            self._mean("kl", kl[scored])
        if judged is not None:
            given = judged.to(scores.device)
            self._mean(f"{prefix}judge", given[real & ~given.isnan()])
        return [
            {
                "kind": kind,
                "prompt": samples[row].prompt.text,
                "response": samples[row].response,
                "score": float(scores[row]),
                **({} if judged is None else {"judge": float(judged[row])}),
                "kl": None if kl is None else float(kl[row]),
                "tokens": len(samples[row].response_tokens),
                "finished": samples[row].finished,
            }
            for row in torch.arange(len(samples))[scored.cpu()].tolist()
        ]

    def _mean(self, name: str, values: Tensor) -> None:
        # Also without values: a rank that never updated would not take part in the mean.
        self.means[name].update(values.float())  # type: ignore[operator]
        share = name == "abstained" or name.endswith("eos_rate")
        self.estimates.add(name, values.float(), share=share)

    def results(self) -> dict[str, Tensor]:
        """The means by name, over all ranks; start anew.

        Raises:
            UserError: the reward function abstained too often.
        """
        abstained: Any = self.means["abstained"]
        if abstained.update_called:
            check_abstained(float(abstained.compute()))
        results = {}
        for name, metric in self.means.items():
            assert isinstance(metric, MeanMetric)
            if metric.update_called:
                results[name] = metric.compute()
            metric.reset()
        return results
