"""The optimizer of every stage."""

from __future__ import annotations

from collections.abc import Iterable

from torch.optim import AdamW


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
