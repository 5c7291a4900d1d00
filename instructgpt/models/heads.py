"""Models that say one number a token: reward and value models, and a policy's value head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from instructgpt.models.flat import hidden_states
from instructgpt.models.forward import base_network
from instructgpt.types import FlatRows

if TYPE_CHECKING:
    from peft import PeftModel


def score_head(width: int) -> nn.Linear:
    """A linear head without bias, weights from N(0, 1 / (width + 1)) (arXiv:2009.01325).

    Args:
        width: hidden size d of the trunk.
    """
    head = nn.Linear(width, 1, bias=False)
    nn.init.normal_(head.weight, std=(width + 1) ** -0.5)
    return head


class ScalarModel(nn.Module):
    """A trunk with a linear head: a reward or value at every token.

    Args:
        trunk: transformer without a head, possibly with an adapter.
        head: linear [d] -> [1].
        offset: subtracted from every score (mean score of demonstrations); 0 as long as none was
            measured.
        trainable_offset: whether gradients reach the offset.
    """

    def __init__(
        self,
        trunk: PreTrainedModel | PeftModel,
        head: nn.Module,
        offset: float = 0.0,
        trainable_offset: bool = False,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.offset = nn.Parameter(torch.tensor([offset]), requires_grad=trainable_offset)

    @property
    def config(self) -> PreTrainedConfig:
        """The trunk's configuration."""
        config: PreTrainedConfig = base_network(self.trunk).config
        return config

    def forward(self, rows: FlatRows) -> Tensor:
        """The score at every token, minus the offset, [T] in float32.

        Args:
            rows: what it reads.
        """
        hidden = hidden_states(self.trunk, rows)
        # Not in half precision: differences of scores are small beside the scores.
        with torch.autocast(hidden.device.type, enabled=False):
            weight = next(self.head.parameters())
            scores: Tensor = self.head(hidden.to(weight.dtype)).squeeze(-1).float()
        return scores - self.offset.float()

    def score(self, rows: FlatRows) -> Tensor:
        """The score [S] at the last token of each segment; argument as for ``forward``.

        Raises:
            ValueError: nothing is there to be scored.
        """
        if not bool((rows.layout.row_lengths > 0).all()):
            raise ValueError("every document must hold a token to be scored, got an empty one")
        scores: Tensor = self(rows)
        return scores[rows.layout.last]


class ValueHead(nn.Linear):
    """A value for every hidden state [..., d] of a policy's trunk; starts at 0 everywhere.

    Args:
        width: hidden size d of the trunk.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """The values [...] in float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            return super().forward(hidden.to(self.weight.dtype)).squeeze(-1).float()
