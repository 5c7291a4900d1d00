"""The rollout buffer: the experience of one phase, whole on every rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from instructgpt.types import Experience, Rollout, ScoredRollout


class RolloutBuffer:
    """Holds the experience of the current phase until its updates are done."""

    def __init__(self, phase: int, experience: Experience) -> None:
        """Keep the experience of a phase.

        Args:
            phase: number of the phase.
            experience: rows of all ranks.
        """
        self.phase = phase
        self.experience = experience
        self.lengths = experience.rollout.response_mask.sum(1).cpu()  # asked for at every step

    def microbatch(self, rows: Tensor) -> Experience:
        """The experience of some rows."""
        rollout = Rollout(*(field[rows] for field in self.experience.rollout))
        return Experience(rollout, *(field[rows] for field in self.experience[1:]))

    def tokens(self, rows: Tensor) -> int:
        """Response tokens of some rows: what their losses are divided by."""
        return int(self.lengths[rows].sum())

    def to(self, device: torch.device) -> RolloutBuffer:
        """The same buffer on a device."""
        rollout = Rollout(*(field.to(device) for field in self.experience.rollout))
        rest = (field.to(device) for field in self.experience[1:])
        return RolloutBuffer(self.phase, Experience(rollout, *rest))

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors, so that a checkpoint loads with ``weights_only=True``."""
        experience = self.experience
        tensors = {**experience.rollout._asdict(), **experience._asdict()}
        del tensors["rollout"]
        return {"phase": self.phase, **{name: t.cpu() for name, t in tensors.items()}}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> RolloutBuffer:
        """The buffer a checkpoint holds."""
        rollout = Rollout(*(state[name] for name in Rollout._fields))
        rest = (state[name] for name in Experience._fields[1:])
        return cls(state["phase"], Experience(rollout, *rest))


def widen(scored: ScoredRollout, prompt_length: int, response_length: int) -> ScoredRollout:
    """Add padding columns up to common lengths, so that rollouts of several ranks can be joined."""
    rollout = scored.rollout
    left = prompt_length - rollout.prompt_mask.shape[1]
    right = response_length - rollout.response_mask.shape[1]
    wide = Rollout(
        pad(rollout.tokens, (left, right)),
        pad(rollout.prompt_mask, (left, 0)),
        pad(rollout.response_mask, (0, right)),
        rollout.finished,
    )
    columns = {
        name: pad(getattr(scored, name), (0, right))
        for name in ("logprobs", "reference_logprobs", "values", "entropy")
    }
    return ScoredRollout(wide, scored.scores, **columns)


def join(parts: Sequence[ScoredRollout]) -> ScoredRollout:
    """The rows of several ranks, in the order of the ranks."""
    rollout = Rollout(*(torch.cat(f) for f in zip(*(p.rollout for p in parts), strict=True)))
    rest = (torch.cat(field) for field in zip(*(part[1:] for part in parts), strict=True))
    return ScoredRollout(rollout, *rest)
