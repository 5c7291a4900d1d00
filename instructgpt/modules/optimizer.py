"""The optimizer of every stage, and what is done with gradients and rates before its step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from instructgpt.models.shards import alike, norm_of_parts
from instructgpt.modules.zero import ZeroOptimizer

FUSED = {"cpu", "cuda"}
"""Kinds of devices with one kernel for all of Adam; elsewhere torch chooses."""


class PaperAdam(AdamW):
    """Adam with the paper's betas (appendix C); what the paper does not say is torch's default.

    A class of its own, so that ``--model.optimizer.lr`` changes the rate and keeps the betas.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: decay of the two moments (paper: 0.9 and 0.95).
        eps: added to the denominator; the paper does not say.
        weight_decay: decoupled weight decay; the paper does not say.
    """

    def __init__(
        self,
        params: Iterable,  # type: ignore[type-arg]
        lr: float = 1e-5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        # Not by the argument: it would keep the scaler of float16 from unscaling before we clip.
        if all(p.device.type in FUSED for group in self.param_groups for p in group["params"]):
            for options in (self.defaults, *self.param_groups):
                options["fused"] = True

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over moments and options, whichever kernel made them; ours is that of this device.

        Args:
            state_dict: of any Adam of torch with the same groups.
        """
        kernel = {key: self.defaults[key] for key in ("fused", "foreach")}
        groups = [{**group, **kernel} for group in state_dict["param_groups"]]
        super().load_state_dict({**state_dict, "param_groups": groups})


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the context a CPU adds up large tensors in one order, however many threads it has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The norm of all of some tensors together, which does not depend on the number of threads."""
    with one_thread():
        return norm_of_parts(gradients)


def gradients_of(optimizer: Any) -> list[list[Tensor]]:
    """The gradients of each parameter group, or of DeepSpeed's this process's parts."""
    if isinstance(optimizer, ZeroOptimizer):
        return optimizer.gradients()
    groups = optimizer.param_groups
    return [[p.grad for p in group["params"] if p.grad is not None] for group in groups]


def gradient_norms(optimizer: Any) -> dict[str, Tensor]:
    """Norm of the gradient of each parameter group that has one, by its name."""
    norms = {}
    for group, gradients in zip(optimizer.param_groups, gradients_of(optimizer), strict=True):
        if isinstance(optimizer, ZeroOptimizer):
            norms[group["name"]] = optimizer.norm(gradients)
        elif gradients:
            norms[group["name"]] = total_norm(gradients)
    return norms


def scale_gradients(optimizer: Any, factor: float) -> None:
    """Multiply all gradients by a number."""
    if factor != 1:
        for gradients in gradients_of(optimizer):
            for gradient in gradients:
                gradient.mul_(factor)


def clip(optimizer: Any, limit: float | None, kind: str | None) -> dict[str, Tensor]:
    """Clip the gradient of each parameter group by itself, and return their norms before.

    Args:
        optimizer: whose groups have names.
        limit: as ``--trainer.gradient_clip_val``.
        kind: as ``--trainer.gradient_clip_algorithm``.
    """
    norms = gradient_norms(optimizer)
    for group, gradients in zip(optimizer.param_groups, gradients_of(optimizer), strict=True):
        if not limit or group["name"] not in norms:
            continue
        norm = norms[group["name"]]
        if isinstance(optimizer, ZeroOptimizer):
            less = (limit / (norm + 1e-6)).clamp(max=1.0)  # as torch does
            for gradient in gradients:
                gradient.clamp_(-limit, limit) if kind == "value" else gradient.mul_(less)
            continue
        for some in alike(group["params"]):
            if kind == "value":
                nn.utils.clip_grad_value_(some, limit)
            else:
                nn.utils.clip_grads_with_norm_(some, limit, norm)
    return norms


def leave_out(optimizer: Any, name: str) -> None:
    """Let a parameter group as it is in the step at hand: neither its weights nor moments change.

    Args:
        optimizer: whose groups have names.
        name: of the group.
    """
    if isinstance(optimizer, ZeroOptimizer):
        optimizer.left_out.add(name)
        return
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["name"] == name else ():
            parameter.grad = None


def set_options(scheduler: Any, options: Sequence[dict[str, Any]]) -> None:
    """Give parameter groups the options that were asked for, at the rates of the schedule now.

    Args:
        scheduler: of rates; its optimizer has its groups.
        options: of each group.
    """
    scheduler.base_lrs = [group["initial_lr"] for group in options]
    factors = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    rates = [base * factor(scheduler.last_epoch) for base, factor in factors]
    groups = scheduler.optimizer.param_groups
    for group, asked, rate in zip(groups, options, rates, strict=True):
        group.update(asked, lr=rate)
