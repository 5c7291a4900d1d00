"""How much arithmetic a fit is: tokens, and floating-point operations of its networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from torch import nn

from instructgpt.models.forward import base_network
from instructgpt.models.quantized import packed_parameters
from instructgpt.modules.shapes import learning_shape, shape_of
from instructgpt.row_shares import place_of

PF_DAY = 1e15 * 86_400
"""Floating-point operations of a petaflop/s-day."""
LOOKED_AT = 10_000
"""Rows whose lengths are averaged."""


class MeanRow(NamedTuple):
    """What networks compute of a row, as a mean over rows."""

    tokens: float  # a prompt that several responses share once
    pairs: float  # of tokens of which one attends to the other
    predicted: float  # tokens of responses

    @classmethod
    def of(cls, rows: Iterable[tuple[int, Sequence[int]]]) -> MeanRow:
        """The means over rows.

        Args:
            rows: tokens of each prompt, and of the responses to it.

        Examples:
            >>> MeanRow.of([(2, [1]), (1, [2, 1])])  # pairs: 3 + 1 + 2, and 1 + 3 + 1 + 3
            MeanRow(tokens=3.5, pairs=7.0, predicted=2.0)
        """
        sums, count = [0.0, 0.0, 0.0], 0
        for prompt, responses in islice(rows, LOOKED_AT):
            own = sum(responses)
            within = sum(length * (length + 1) / 2 for length in (prompt, *responses))
            for place, number in enumerate((prompt + own, within + prompt * own, own)):
                sums[place] += number
            count += 1
        return cls(*(one / max(1, count) for one in sums))


class Cost(NamedTuple):
    """Of a part of a run."""

    part: str
    tokens: float  # that are computed
    flops: float


def layer_weights(network: nn.Module) -> int:
    """Weights that every token is multiplied with: all but embeddings and the head of logits.

    Args:
        network: any.
    """
    base = base_network(network)
    apart = {id(m.weight): m.weight for m in base.modules() if isinstance(m, nn.Embedding)}
    if (head := base.get_output_embeddings()) is not None:
        apart[id(head.weight)] = head.weight
    weights = sum(p.numel() for p in base.parameters() if id(p) not in apart)
    return weights + packed_parameters(base)


def forward_flops(network: nn.Module, seen: MeanRow) -> tuple[float, float]:
    """Of a row, in the layers and in the head of logits: a product and a sum for each weight.

    Args:
        network: that reads it.
        seen: what a row is.
    """
    shape, head = shape_of(network), base_network(network).get_output_embeddings()
    attention = 4 * shape.layers * shape.width * seen.pairs
    logits = 0 if head is None else 2 * head.weight.numel() * seen.predicted
    return 2 * layer_weights(network) * seen.tokens + attention, float(logits)


def asked(network: nn.Module, seen: MeanRow) -> float:
    """Operations of a forward pass of a row, without gradients; arguments as for ``learned``."""
    return sum(forward_flops(network, seen))


def learned(network: nn.Module, seen: MeanRow) -> float:
    """Operations of a forward pass of a row and of its backward pass.

    A product is there once more for the gradient of what went in, in all layers above the first
    weight that learns, and once more for each weight that learns. What gradient checkpointing
    computes again is not counted, as is the rule for a model's FLOPs (arXiv:2204.02311).

    Args:
        network: that learns.
        seen: what a row is.
    """
    layers, logits = forward_flops(network, seen)
    above = learning_shape(network).layers / shape_of(network).layers
    base, head = base_network(network), base_network(network).get_output_embeddings()
    others = {id(m.weight) for m in base.modules() if isinstance(m, nn.Embedding)}
    others |= set() if head is None else {id(head.weight)}
    own = sum(p.numel() for p in base.parameters() if p.requires_grad and id(p) not in others)
    share = min(above, own / max(1, layer_weights(network)))
    own_head = head is not None and head.weight.requires_grad
    return layers * (1 + above + share) + logits * (1 + (above > 0) + own_head)


def rows_of(stage: Any, steps: int) -> int:
    """Rows of so many optimizer steps, over all processes.

    Args:
        stage: whose batches are rows.
        steps: of the run.
    """
    trainer = stage.trainer
    batches = steps * trainer.accumulate_grad_batches * place_of(trainer).ranks
    return int(batches * stage.data.batch_size)


def work_lines(costs: Sequence[Cost], steps: int | None) -> list[tuple[str, str]]:
    """What is said of the arithmetic of a run.

    Args:
        costs: of its parts.
        steps: optimizer steps that these are; None: where only time limits it, those of one.
    """
    if not costs:
        return []
    a_step = "" if steps is not None else " a step"
    tokens = ", ".join(f"{one.part} {one.tokens:,.0f}" for one in costs)
    days = ", ".join(f"{one.part} {one.flops / PF_DAY:.3g}" for one in costs)
    whole = sum(one.flops for one in costs) / PF_DAY
    named = f": {days}" if len(costs) > 1 else ""
    return [
        (f"tokens computed{a_step}", tokens),
        (f"arithmetic{a_step}", f"{whole:.3g} petaflop/s-days{named}, without validation"),
    ]
