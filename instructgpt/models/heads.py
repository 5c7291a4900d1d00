"""Models that say one number a token: reward and value models, and a policy's value head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedConfig, PreTrainedModel

from instructgpt.models.features import Features
from instructgpt.models.flat import hidden_states
from instructgpt.models.forward import base_network
from instructgpt.models.shard_calls import as_forward
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


class Heads(nn.Module):
    """Linear heads side by side, [F] -> [H], each with a zero of its own.

    They read standardised numbers, once ``standardise`` has seen some.

    Args:
        count: H.
        width: F.
    """

    mean: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count, width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("shift", torch.zeros(count))

    @classmethod
    def drawn(cls, count: int, width: int) -> Heads:
        """Heads that start apart, each as a single one does."""
        heads = cls(count, width)
        nn.init.normal_(heads.weight, std=(width + 1) ** -0.5)
        return heads

    @property
    def standardised(self) -> bool:
        """Whether they have seen what they read."""
        return bool(self.mean.any() | (self.scale != 1).any())

    def forward(self, read: Tensor) -> Tensor:
        """What each head says, [..., H] of [..., F]."""
        return linear((read - self.mean) / self.scale, self.weight) - self.shift

    @torch.no_grad()
    def standardise(self, read: Tensor) -> None:
        """Have what is read at mean 0 and deviation 1; what never changes is only moved.

        Args:
            read: [N, F] as much of it as there is.
        """
        variance, mean = torch.var_mean(read.double(), dim=0, correction=0)
        scale = variance.sqrt()
        constant = scale <= 1e-6 * mean.abs() + 1e-12
        self.mean.copy_(mean)
        self.scale.copy_(scale.masked_fill(constant, 1.0))

    @torch.no_grad()
    def as_one(self) -> tuple[nn.Linear, float]:
        """The mean of all heads as a plain one, and what to subtract from what it says."""
        weight, shift = self.folded()
        one = nn.Linear(weight.shape[1], 1, bias=False)
        one.weight = nn.Parameter(weight)
        return one, shift

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, float]:
        """The mean of all heads as one: its weight [1, F] on what is read as it is, and its shift.

        A mean of linear heads is a linear head.
        """
        each = self.weight.double() / self.scale
        shift = (each @ self.mean.double() + self.shift).mean()
        return each.mean(0, keepdim=True).to(self.weight.dtype), float(shift)


class ScalarModel(nn.Module):
    """A trunk with a linear head, or several: a reward or value at every token.

    Args:
        trunk: transformer without a head, possibly with an adapter.
        head: linear [d] -> [1], or ``Heads``, whose mean is the score.
        offset: subtracted from every score (mean score of demonstrations); 0 as long as none was
            measured.
        trainable_offset: whether gradients reach the offset.
        features: what the heads read instead of the last state; then there are scores of segments
            alone, and no gradients below the heads.
    """

    def __init__(
        self,
        trunk: PreTrainedModel | PeftModel,
        head: nn.Module,
        offset: float = 0.0,
        trainable_offset: bool = False,
        features: Features | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.offset = nn.Parameter(torch.tensor([offset]), requires_grad=trainable_offset)
        self.features = features

    @property
    def config(self) -> PreTrainedConfig:
        """The trunk's configuration."""
        config: PreTrainedConfig = base_network(self.trunk).config
        return config

    @property
    def heads(self) -> int:
        """How many there are."""
        return len(self.head.weight) if isinstance(self.head, Heads) else 1

    def as_one(self) -> ScalarModel:
        """The same with the mean of its heads as the only one; not where they read features."""
        assert isinstance(self.head, Heads)
        head, shift = self.head.as_one()
        offset = shift + self.offset.item()
        return ScalarModel(self.trunk, head, offset, self.offset.requires_grad)

    def forward(self, rows: FlatRows) -> Tensor:
        """The score at every token, minus the offset, [T] in float32.

        Args:
            rows: what it reads.
        """
        return self._of_tokens(rows).mean(-1)

    def score(self, rows: FlatRows) -> Tensor:
        """The score [S] at the last token of each segment; argument as for ``forward``.

        Raises:
            ValueError: nothing is there to be scored.
        """
        return self.each(rows).mean(-1)

    @as_forward
    def each(self, rows: FlatRows) -> Tensor:
        """What each head says at the last token of each segment, [S, H]; as for ``score``."""
        if not bool((rows.layout.row_lengths > 0).all()):
            raise ValueError("every document must hold a token to be scored, got an empty one")
        if self.features is not None:
            return self._read(self.features.read(self.trunk, rows))
        return self._of_tokens(rows)[rows.layout.last]

    @as_forward
    def read(self, states: Tensor) -> Tensor:
        """What each head says of what it reads, minus the offset, [..., H] in float32.

        Args:
            states: [..., d], or [..., F] where the heads read features.
        """
        return self._read(states)

    def _read(self, states: Tensor) -> Tensor:
        # Not in half precision: differences of scores are small beside the scores.
        with torch.autocast(states.device.type, enabled=False):
            weight = next(self.head.parameters())
            scores: Tensor = self.head(states.to(weight.dtype)).float()
        return scores - self.offset.float()

    def _of_tokens(self, rows: FlatRows) -> Tensor:
        if self.features is not None:
            raise ValueError("heads on features say nothing of single tokens")
        return self._read(hidden_states(self.trunk, rows))


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
