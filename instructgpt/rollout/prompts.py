"""Which prompts a rollout phase asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from instructgpt.types import PromptBatch


@dataclass(frozen=True)
class PhasePrompts:
    """The prompts of every phase, each as often as it is answered.

    Args:
        draw: gives a rank its share, from the number of a phase, how many prompts all ranks ask,
            the rank and the number of ranks.
        episodes: of a phase, over all ranks.
        responses: to each prompt.
        overfits: sees the prompts of the first phase again and again.
    """

    draw: Callable[[int, int, int, int], PromptBatch]
    episodes: int
    responses: int
    overfits: bool

    def share(self, number: int, rank: int, world_size: int) -> PromptBatch:
        """What a rank asks in a phase."""
        drawn = 0 if self.overfits else number
        prompts = self.draw(drawn, self.episodes // self.responses, rank, world_size)
        return repeat(prompts, self.responses)

    def ids(self, rows: Sequence[int], number: int) -> list[str]:
        """Ids of the prompts of a rollout's rows; drawn again, so that nothing has to keep them."""
        prompts = self.share(number, 0, 1).prompts
        return [prompts[row].id for row in rows]


def repeat(batch: PromptBatch, responses: int) -> PromptBatch:
    """Every row ``responses`` times in a row, each with its own sampling noise.

    Args:
        batch: prompts; blank rows, which have a sample id below 0, stay blank.
        responses: to each prompt.
    """
    if responses == 1:
        return batch
    tokens, mask = (t.repeat_interleave(responses, 0) for t in (batch.tokens, batch.mask))
    ids = batch.sample_ids.repeat_interleave(responses) * responses
    ids = ids + torch.arange(responses, device=ids.device).repeat(len(batch.prompts))
    return PromptBatch(tokens, mask, ids, [p for p in batch.prompts for _ in range(responses)])
