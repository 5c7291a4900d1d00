"""A run whose numbers are no longer finite stops at once, on all ranks, and says where."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer

from instructgpt.models.finite import first_not_finite
from instructgpt.models.shards import whole
from instructgpt.modules.loss_scale import SkippedSteps
from instructgpt.modules.optimizer import gradient_norms, total_norm
from instructgpt.modules.ranks import everyones
from instructgpt.types import RunFailedError, UserError

T = TypeVar("T")
Ids = Callable[[], Sequence[str]]
"""Names of samples, asked for only when they are needed."""

SHOWN = 8
"""Samples that a message names."""


class Seen(NamedTuple):
    """A number that must be finite, and the samples it comes from."""

    name: str
    value: Tensor  # scalar
    ids: Ids


class FiniteGuard:
    """The numbers of one optimizer step or of one validation, looked at together at its end.

    Nothing waits for the device until then.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.seen: list[Seen] = []
        self.skips = SkippedSteps()

    def see(self, name: str, value: Tensor, ids: Ids) -> None:
        """Remember a number.

        Args:
            name: for the message.
            value: scalar.
            ids: of the samples it comes from.
        """
        self.seen.append(Seen(name, value.detach().float(), ids))

    def check_step(
        self, module: Any, optimizer: Optimizer, sums: dict[str, Tensor]
    ) -> dict[str, float]:
        """Stop on every rank unless losses and gradients are finite; start anew.

        Args:
            module: stage that is about to step.
            optimizer: with the gradient of the whole step.
            sums: scalars to add up over the ranks; none, or "count" (targets) is among them.

        Returns:
            Them, added up: one wait for the device does for all of it.
        """
        norms = [whole(norm).float() for norm in gradient_norms(optimizer).values()]
        step = module.global_step + 1
        parts = [self._total(module), *norms, *sums.values()]
        seen, *rest = module.all_sum(torch.stack(parts)).tolist()
        added = dict(zip(sums, rest[len(norms) :], strict=True))
        if math.isfinite(seen):
            if not self.skips.see(module, all(map(math.isfinite, rest[: len(norms)]))):
                stop(module, bad_gradients(module, self.ids()), step)
            if added.get("count") == 0:
                stop(module, [f"no sample has a target{of_samples(self.ids())}"], step)
        self._check(module, seen, step)
        return added

    def check(self, module: Any) -> None:
        """Stop on every rank if a number so far is not finite; start anew."""
        if self.seen:
            total = float(module.all_sum(self._total(module)))
            self._check(module, total, module.global_step)

    def _total(self, module: Any) -> Tensor:
        """One number for all that was seen: ranks may have seen different numbers of pieces."""
        nothing = torch.zeros((), device=module.device)
        return torch.stack([nothing, *(one.value for one in self.seen)]).sum()

    def _check(self, module: Any, total: float, step: int) -> None:
        seen, self.seen = self.seen, []
        if not math.isfinite(total):
            bad = [one for one in seen if not math.isfinite(one.value)]
            found = [f"{one.name} is {one.value.item():g}{of_samples(one.ids())}" for one in bad]
            stop(module, found, step)

    def ids(self) -> list[str]:
        """The samples so far."""
        return [name for one in self.seen for name in one.ids()]


def of_samples(ids: Sequence[str]) -> str:
    """Which samples, the first few by name.

    >>> of_samples(["a", "b"])
    ' (samples a, b)'
    >>> of_samples([])
    ''
    """
    names = [name for name in dict.fromkeys(ids) if name]
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f" (samples {', '.join(names[:SHOWN])}{more})" if names else ""


def stop(module: Any, findings: Sequence[str], step: int) -> None:
    """End the run on every rank with the first finding of all ranks; every rank must call this.

    Args:
        module: stage whose run it is.
        findings: what is wrong on this rank, if anything.
        step: optimizer step that is under way, or done where none is.
    """
    first = next((one[0] for one in everyones(list(findings)) if one), None)
    if first is None:
        return
    raise RunFailedError(at(module, first, step))


def at(module: Any, finding: str, step: int) -> str:
    """The line for a finding: where, and what is left of the run."""
    trainer, line = module.trainer, f"{finding} at optimizer step {step}"
    if trainer.state.fn == TrainerFn.FITTING:
        kept = Path(trainer.default_root_dir, "checkpoints", "last.ckpt")
        line += ": stopped, nothing is exported"
        line += f"; the state before is in {kept}" if kept.is_file() else ""
    return line


def together(module: Any, run: Callable[[], T]) -> T:
    """Do what may fail on one rank alone; then every rank raises its error, and none waits.

    Args:
        module: stage that does it.
        run: must not talk to other ranks itself.
    """
    result, error = None, None
    try:
        result = run()
    except UserError as caught:
        error = caught
    first = next((one for one in everyones(error) if one is not None), None)
    if isinstance(first, RunFailedError):
        raise RunFailedError(at(module, str(first), module.global_step)) from error
    if first is not None:
        raise first from error
    return result  # type: ignore[return-value]


def bad_gradients(module: Any, ids: Sequence[str]) -> list[str]:
    """Findings about gradients: the first parameter whose gradient is not finite.

    A norm in half precision can be infinite where no element is: that is no finding.
    """
    named = [(name, p.grad) for name, p in module.named_parameters() if p.grad is not None]
    bad = first_not_finite(named)
    if bad is not None:
        return [f"the gradient of {bad} is not finite{of_samples(ids)}"]
    if not named:  # DeepSpeed has taken them
        return [f"the gradient is not finite{of_samples(ids)}"]
    norm = whole(total_norm([gradient.float() for _, gradient in named]))
    if math.isfinite(float(norm)):
        return []
    return [f"the norm of the gradient is {float(norm)}{of_samples(ids)}"]


def check_weights(module: Any) -> None:
    """Stop on every rank if a trained weight is not finite; every rank must call this."""
    weights = ((name, p) for name, p in module.named_parameters() if p.requires_grad)
    trained = (
        (name, getattr(p, "ds_tensor", p).detach()) for name, p in weights
    )  # DeepSpeed's part
    bad = first_not_finite(trained)
    findings = [] if bad is None else [f"the weights {bad} are not finite"]
    stop(module, findings, module.global_step)
