"""The pretraining mix of PPO-ptx: the second term of eq. 2, in the same optimizer step."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from instructgpt.algorithms.base import require
from instructgpt.functional.losses import cross_entropy_loss
from instructgpt.models.forward import run
from instructgpt.types import LanguageBatch

if TYPE_CHECKING:
    from instructgpt.modules.ppo import PPOModule


@dataclass(frozen=True)
class Pretraining:
    """The pretraining term of eq. 2.

    Args:
        ptx_coef: γ of eq. 2, weight of the pretraining loss; 0 is plain PPO (paper, PPO-ptx: 27.8).
        ptx_per_episode: pretraining sequences per episode (paper: 8), from ``--data.pretraining``.
    """

    ptx_coef: float = 0.0
    ptx_per_episode: int = 8

    def __post_init__(self) -> None:
        """Check the fields."""
        require(0 <= self.ptx_coef < inf, "model.pretraining.ptx_coef", ">= 0", self.ptx_coef)
        rows = self.ptx_per_episode
        require(rows >= 1, "model.pretraining.ptx_per_episode", ">= 1", rows)


class PretrainingMix:
    """Adds the gradient of ptx_coef times the pretraining loss before PPO's own of an update.

    Both are computed one after the other and accumulate in the gradient buffer (paper, appendix
    C.4), so that only one graph is alive at a time.
    """

    def __init__(self, module: PPOModule) -> None:
        """Work for a module."""
        self.module = module
        self.kept: dict[str, Tensor] = {}
        self.norm = 0.0

    def backward(self, update: int, rows: int, measure: bool) -> Tensor:
        """Accumulate the gradient and return the mean negative log-likelihood per token.

        Args:
            update: number of the update over all phases.
            rows: pretraining sequences over all ranks.
            measure: keep a copy of the gradient, to log the norms of both objectives.
        """
        module, trainer = self.module, self.module.trainer
        share = update, rows, trainer.global_rank, trainer.world_size
        batch = module.data.pretraining_rows(*share)
        batch = module.transfer_batch_to_device(batch, module.device, 0)
        tokens = module.all_sum(batch.targets[:, 1:].sum().float())
        total = torch.zeros((), device=module.device)
        for part in torch.arange(len(batch.tokens)).split(module.plan_of_updates.microbatch_size):
            loss = self.loss(LanguageBatch(*(field[part] for field in batch)))
            # DDP averages over ranks what it reduces, and this is reduced with PPO's gradient.
            scale = module.pretraining.ptx_coef * trainer.world_size / tokens
            trainer.strategy.backward(loss * scale, None)
            total += loss.detach()
        module.guard.see("the pretraining loss", total, lambda: module.data.pretraining_ids(*share))
        if measure:
            self.keep()
        return module.all_sum(total) / tokens

    def loss(self, batch: LanguageBatch) -> Tensor:
        """Summed cross-entropy."""
        logits = run(
            self.module.policy,
            batch.tokens,
            batch.mask,
            positions=batch.positions,
            documents=batch.documents,
            every_id=True,
        ).logits[:, :-1]
        return cross_entropy_loss(logits, batch.tokens[:, 1:], batch.targets[:, 1:])[0]

    def keep(self) -> None:
        """Remember the gradient of the pretraining term, summed over ranks as DDP will."""
        module = self.module
        undo = 1.0 / (self.loss_scale() * module.trainer.world_size)
        self.kept = {name: module.all_sum(g * undo) for name, g in self.gradients()}
        self.norm = float(nn.utils.get_total_norm(list(self.kept.values())))

    def norms(self) -> dict[str, float]:
        """Gradient norms of PPO alone and of the pretraining term, when the gradient is whole."""
        rest = [g - self.kept.get(name, 0.0) for name, g in self.gradients()]
        self.kept = {}
        return {
            "gradient_norm/ppo": float(nn.utils.get_total_norm(rest)),
            "gradient_norm/ptx": self.norm,
        }

    def gradients(self) -> list[tuple[str, Tensor]]:
        """Of the policy's parameters, by name."""
        parameters = self.module.policy.named_parameters()
        return [(name, p.grad) for name, p in parameters if p.grad is not None]

    def loss_scale(self) -> float:
        """What the gradient is multiplied by before the step in 16-bit mixed precision."""
        scaler = getattr(self.module.trainer.precision_plugin, "scaler", None)
        return float(scaler.get_scale()) if scaler is not None else 1.0
