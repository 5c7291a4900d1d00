"""The pretraining term of PPO-ptx: the second of eq. 2, in the same optimizer step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn

from instructgpt.models.shards import whole
from instructgpt.modules.language import language_loss
from instructgpt.modules.loss_scale import loss_scale
from instructgpt.modules.optimizer import total_norm
from instructgpt.modules.pieces import averaged_over
from instructgpt.modules.sharding import sharding_of
from instructgpt.modules.zero import zero_of
from instructgpt.row_shares import place_of
from instructgpt.types import require


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

    def backward(self, module: Any, place: tuple[int, int], episodes: int) -> tuple[Tensor, Any]:
        """Add γ times the gradient of the pretraining loss: the mean over its tokens.

        Args:
            module: PPO's, whose policy learns.
            place: number of the phase, and of the update in it.
            episodes: of the update, over all ranks.

        Returns:
            The loss over all ranks, and of an update that is measured the gradient by parameter.
        """
        plan, trainer = module.plan_of_updates, module.trainer
        which = (place[0] * plan.updates + place[1], self.ptx_per_episode * episodes)
        share = (*which, *place_of(trainer))
        rows = module.data.pretraining_rows(*share)
        batch = module.transfer_batch_to_device(rows, module.device, 0)
        tokens = module.all_sum(batch.targets.sum().float())
        total = torch.zeros((), device=module.device)
        pieces = batch.pieces(module.network.max_tokens, plan.microbatch_size)
        for piece in module.pieces.as_many(module, pieces):
            loss = module.pieces.compute(module, partial(_piece_loss, module, piece))
            scale = self.ptx_coef * averaged_over(trainer) / tokens
            module.pieces.backward(module, loss * scale)
            total += loss.detach()
        ids = partial(module.data.pretraining_ids, *share)
        module.guard.see("the pretraining loss", total, ids)
        # Keep it, to log the norms of both objectives; DeepSpeed has no part of it before the step.
        measured = place[1] == 0 and zero_of(trainer) is None
        gradient = whole_gradient(module.policy, trainer, module.all_sum) if measured else {}
        return module.all_sum(total) / tokens, gradient


def _piece_loss(module: Any, piece: Any) -> Tensor:
    """The sum over the tokens of a piece that counts, else 0."""
    return language_loss(module.policy, piece).total * float(module.pieces.counts)


def gradient_of(network: nn.Module, scale: float) -> dict[str, Tensor]:
    """A copy of the gradient collected so far, by parameter, times a number."""
    parameters = network.named_parameters()
    return {name: p.grad * scale for name, p in parameters if p.grad is not None}


def whole_gradient(module: nn.Module, trainer: Any, all_sum: Any) -> dict[str, Tensor]:
    """The gradient collected so far, as it will be after the exchange between ranks.

    Args:
        module: whose gradient it is.
        trainer: of the run.
        all_sum: adds up over the ranks.
    """
    scale = loss_scale(trainer)
    if sharding_of(trainer) is not None:  # each rank has its part of what was exchanged
        return gradient_of(module, 1.0 / scale)
    mine = gradient_of(module, 1.0 / (scale * trainer.world_size))
    return {name: all_sum(gradient) for name, gradient in mine.items()}


def objective_norms(network: nn.Module, pretraining: Mapping[str, Tensor]) -> dict[str, float]:
    """Norms of the gradients of both terms of eq. 2; of a step that is skipped, none.

    Args:
        network: with the gradient of both.
        pretraining: that of the second, by parameter.
    """
    rest = [  # one after the other: copies of all would be the most memory of a run
        whole(torch.linalg.vector_norm(p.grad - pretraining[name]))
        if name in pretraining
        else whole(torch.linalg.vector_norm(p.grad))
        for name, p in network.named_parameters()
        if p.grad is not None
    ]
    norms = {
        "gradient_norm/ppo": float(torch.linalg.vector_norm(torch.stack(rest))),
        "gradient_norm/ptx": float(whole(total_norm(list(pretraining.values())))),
    }
    return norms if all(map(isfinite, norms.values())) else {}
