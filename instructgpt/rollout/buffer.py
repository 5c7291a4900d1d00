"""The rollout buffer: the experience of one phase, whole on every rank."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from instructgpt.types import Rollout


class RolloutBuffer:
    """Holds what the updates of the current phase learn from until they are done."""

    def __init__(
        self, phase: int, experience: Any, logprobs: Tensor, weights: Tensor, rows: Tensor
    ) -> None:
        """Keep the experience of a phase.

        Args:
            phase: number of the phase.
            experience: of the rows of all ranks that are learned from: a NamedTuple with a
                ``rollout``, every other field a tensor with a row for each of its rows.
            logprobs: of the policy that sampled them, [N, R].
            weights: what each row adds to the divisor of its minibatch, [N]; a row without response
                adds nothing.
            rows: places of these rows in the rollout, [N].
        """
        self.phase = phase
        self.experience = experience
        self.logprobs = logprobs
        self.rows = rows.cpu()
        answered = experience.rollout.response_mask.any(1)
        # On the CPU, as it is asked for at every step; in double, so that token counts are exact.
        self.weights = weights.masked_fill(~answered, 0).double().cpu()
        self.lengths = experience.rollout.mask.sum(1).cpu()  # tokens of each row
        assert len(logprobs) == len(self.rows) == len(self.weights) == len(answered)

    def weight(self, rows: Tensor) -> float:
        """What the losses of some rows are divided by."""
        return float(self.weights[rows].sum())

    def to(self, device: torch.device) -> RolloutBuffer:
        """The same buffer on a device."""
        rollout = Rollout(*(field.to(device) for field in self.experience.rollout))
        others = {name: field.to(device) for name, field in columns(self.experience).items()}
        experience = self.experience._replace(rollout=rollout, **others)
        logprobs, weights = self.logprobs.to(device), self.weights.to(device)
        return RolloutBuffer(self.phase, experience, logprobs, weights, self.rows)

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors, so that a checkpoint loads with ``weights_only=True``."""
        return {
            "phase": self.phase,
            "rollout": {name: t.cpu() for name, t in self.experience.rollout._asdict().items()},
            "experience": {name: t.cpu() for name, t in columns(self.experience).items()},
            "logprobs": self.logprobs.cpu(),
            "weights": self.weights,
            "rows": self.rows,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], experience_type: type) -> RolloutBuffer:
        """The buffer a checkpoint holds, with the experience of an algorithm."""
        experience = experience_type(rollout=Rollout(**state["rollout"]), **state["experience"])
        return cls(state["phase"], experience, state["logprobs"], state["weights"], state["rows"])


def take(experience: Any, rows: Tensor) -> Any:
    """Some rows of an experience, or of a scored rollout."""
    rollout = Rollout(*(field[rows] for field in experience.rollout))
    others = {name: field[rows] for name, field in columns(experience).items()}
    return experience._replace(rollout=rollout, **others)


def columns(experience: Any) -> dict[str, Tensor]:
    """The tensors of an experience, or of a scored rollout, beside its rollout, by name."""
    fields = experience._asdict().items()
    return {name: field for name, field in fields if name != "rollout" and field is not None}
