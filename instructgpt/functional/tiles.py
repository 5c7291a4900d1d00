"""Log-probabilities of tokens from hidden states, without logits of all of them in memory.

The logits are made tile by tile, some positions times some ids, and made again in the backward
pass: what is kept in between is three numbers a position. A tile fits the cache of a processor, so
that exponentials and sums, done in place, are cheap beside the matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from instructgpt.functional.bits import unpack_bits
from instructgpt.functional.logprobs import Readings

TILES = {"cpu": (512, 4096), "cuda": (2048, 16384)}
"""Positions and ids of a tile by the kind of device; measured."""
LOWEST = -1e30
"""The logit of an impossible id: finite, so that neither it nor its products become NaN."""
DEEP = -50.0
"""What is this far below the best logit has probability 0: 2e-22 adds nothing to a sum, and the
exponential of less ends in numbers that processors take a hundred times as long for."""


def tiled_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
    impossible: Tensor | None = None,
    count: int | None = None,
    support: Tensor | None = None,
    entropy: bool = False,
    tile: tuple[int, int] | None = None,
) -> Readings:
    """Log-probability of a token at each position, from what the language model head reads.

    The logits are ``scale * cap(hidden @ weight.T + bias)`` with
    ``cap(x) = softcap * tanh(x / softcap)``. Under autocast the products are in its type; sums and
    exponentials are in float32 or better.

    Args:
        hidden: [M, d] states.
        weight: [V, d] of the head.
        targets: [M] int64, the token at each position.
        bias: [V] of the head.
        softcap: that no logit exceeds; None: there is none.
        scale: of the logits; the inverse of the temperature is one factor of it.
        impossible: ids without a token, whose logits are -inf.
        count: how many ids are known, the first ones; the others are impossible; None: all.
        support: [M, V / 8] uint8 sets of ids as ``pack_bits`` makes them: at each position all
            others are impossible; None: no id is.
        entropy: whether to return the entropy of each distribution.
        tile: positions and ids of a tile; the result does not depend on it but for rounding.

    Returns:
        Readings in float32 (float64 if the inputs are); -inf for a target that is impossible.

    Examples:
        >>> states, weight = torch.ones(1, 1), torch.tensor([[0.0], [0.0]])
        >>> tiled_logprobs(states, weight, torch.tensor([0]), entropy=True)
        Readings(logprobs=tensor([-0.6931]), correct=tensor([True]), entropy=tensor([0.6931]))
    """
    count = len(weight) if count is None else count
    if impossible is not None and len(impossible):
        targets = targets.masked_fill(torch.isin(targets, impossible), -1)
    else:
        impossible = None
    device = hidden.device.type
    product = torch.promote_types(hidden.dtype, weight.dtype)
    if torch.is_autocast_enabled(device) and product != torch.float64:
        product = torch.get_autocast_dtype(device)
    tile = TILES.get(device, TILES["cuda"]) if tile is None else tile
    head = _Head(softcap, scale, impossible, support, count, entropy, product, tile)
    return Readings(*_TiledLogprobs.apply(hidden, weight, bias, targets, head))


@dataclass(frozen=True)
class _Head:
    """What turns a tile of states and weights into logits."""

    softcap: float | None
    scale: float
    impossible: Tensor | None
    support: Tensor | None
    count: int
    entropy: bool
    product: torch.dtype  # of what enters matrix products
    tile: tuple[int, int]

    def ids(self) -> Iterator[slice]:
        """The ids of each tile."""
        return _pieces(self.count, self.tile[1])

    def places(self, hidden: Tensor) -> Iterator[slice]:
        """The positions of each tile."""
        return _pieces(len(hidden), self.tile[0])

    def logits(
        self, states: Tensor, weight: Tensor, bias: Tensor | None, places: slice, ids: slice
    ) -> Tensor:
        """Of a tile, [m, n]."""
        logits = _wide_product(states[places], weight.t())
        if bias is not None:
            logits.add_(bias[ids])
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        if self.scale != 1:
            logits.mul_(self.scale)
        if self.impossible is not None:
            here = self.impossible[(self.impossible >= ids.start) & (self.impossible < ids.stop)]
            logits.index_fill_(1, here - ids.start, LOWEST)
        if self.support is not None:
            logits.masked_fill_(~unpack_bits(self.support[places], ids), LOWEST)
        return logits


class _TiledLogprobs(torch.autograd.Function):
    """The autograd function behind :func:`tiled_logprobs`."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, head: _Head
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One pass over all tiles, which keeps the running sums of each position."""
        wide = torch.float64 if head.product == torch.float64 else torch.float32
        found = _Sums.start(len(hidden), hidden.device, wide, head.entropy)
        states = hidden.to(head.product)
        with torch.autocast(hidden.device.type, enabled=False):
            for ids in head.ids():
                weights = weight[ids].to(head.product)
                for places in head.places(hidden):
                    logits = head.logits(states, weights, bias, places, ids)
                    found.add(logits, targets[places] - ids.start, places)
        logprobs, entropy = found.logprobs(), found.entropy()
        ctx.save_for_backward(hidden, weight, bias, targets, found.best, found.total, entropy)
        ctx.head = head
        ctx.mark_non_differentiable(found.correct)
        ctx.set_materialize_grads(False)
        return logprobs, found.correct, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_logprobs: Tensor | None, _: None, by_entropy: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        """The same tiles again, each turned into the gradient of its logits."""
        hidden, weight, bias, targets, best, total, entropy = ctx.saved_tensors
        head: _Head = ctx.head
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        states = hidden.to(head.product)
        slope = _Slope.of(by_logprobs, by_entropy, best, total, entropy, head)
        hidden_grad = torch.zeros_like(hidden, dtype=best.dtype) if to_hidden else None
        weight_grad = torch.zeros_like(weight) if to_weight else None
        bias_grad = torch.zeros_like(bias) if to_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            for ids in head.ids():
                weights = weight[ids].to(head.product)
                part = None if weight_grad is None else _accumulator(weight_grad[ids], best.dtype)
                for places in head.places(hidden):
                    logits = head.logits(states, weights, bias, places, ids)
                    slope.replace(logits, targets[places] - ids.start, places)
                    if bias_grad is not None:
                        bias_grad[ids] += logits.sum(0)
                    gradient = logits.to(head.product)
                    if hidden_grad is not None:
                        _add_product(hidden_grad[places], gradient, weights)
                    if part is not None:
                        _add_product(part, gradient.t(), states[places])
                if weight_grad is not None and part is not None and part.dtype != weight.dtype:
                    weight_grad[ids] = part
        found = None if hidden_grad is None else hidden_grad.to(hidden.dtype)
        return found, weight_grad, bias_grad, None, None


@dataclass
class _Sums:
    """What is known of each position after some of the ids; all [M]."""

    best: Tensor  # highest logit
    total: Tensor  # sum of exp(logit - best)
    weighted: Tensor | None  # sum of exp(logit - best) * (logit - best)
    own: Tensor  # logit of the target; -inf until it came
    correct: Tensor

    @classmethod
    def start(cls, places: int, device: torch.device, dtype: torch.dtype, entropy: bool) -> _Sums:
        """Before the first tile."""
        zeros = torch.zeros(places, device=device, dtype=dtype)
        return cls(
            torch.full_like(zeros, LOWEST),
            zeros,
            torch.zeros_like(zeros) if entropy else None,
            torch.full_like(zeros, -torch.inf),
            torch.zeros_like(zeros, dtype=torch.bool),
        )

    def add(self, logits: Tensor, columns: Tensor, places: slice) -> None:
        """A tile, which is used up; ``columns`` is where the target is, if it is in the tile."""
        inside = (columns >= 0) & (columns < logits.shape[1])
        columns = columns.clamp(0, logits.shape[1] - 1)
        own = logits.gather(1, columns[:, None]).squeeze(1)
        highest = logits.amax(1)
        before = self.best[places]
        first = inside & _is_first_best(logits, highest, own, columns)
        self.correct[places] = torch.where(highest > before, first, self.correct[places])
        self.own[places] = torch.where(inside, own, self.own[places])
        best = torch.maximum(before, highest)
        shift = before - best
        logits.sub_(best[:, None]).clamp_(min=DEEP)
        shrink = shift.exp()
        if self.weighted is not None:
            known = self.weighted[places] + shift * self.total[places]
            exponentials = logits.exp()
            self.weighted[places] = known * shrink + torch.linalg.vecdot(exponentials, logits)
        else:
            exponentials = logits.exp_()
        self.total[places] = self.total[places] * shrink + exponentials.sum(1)
        self.best[places] = best

    def logprobs(self) -> Tensor:
        """Of the targets, after all tiles."""
        return (self.own - self.best) - self.total.log()

    def entropy(self) -> Tensor | None:
        """Of each position, after all tiles."""
        if self.weighted is None:
            return None
        return self.total.log() - self.weighted / self.total


@dataclass(frozen=True)
class _Slope:
    """The gradient of a logit: ``probability * (constant + factor * (logit - best))``.

    That of a target gets ``target`` on top. All are [M] and have the scale of the logits in them.
    """

    best: Tensor
    constant: Tensor
    factor: Tensor | None  # only the entropy has it
    target: Tensor
    cap: float | None  # that no scaled logit exceeds

    @classmethod
    def of(
        cls,
        by_logprobs: Tensor | None,
        by_entropy: Tensor | None,
        best: Tensor,
        total: Tensor,
        entropy: Tensor | None,
        head: _Head,
    ) -> _Slope:
        """From the gradients of the outputs; None is 0."""
        target = torch.zeros_like(best) if by_logprobs is None else by_logprobs * head.scale
        constant, factor = -target / total, None
        if by_entropy is not None and entropy is not None:
            factor = -by_entropy * head.scale / total
            constant = constant + factor * (entropy - total.log())
        cap = None if head.softcap is None else abs(head.softcap * head.scale)
        return cls(best, constant, factor, target, cap)

    def replace(self, logits: Tensor, columns: Tensor, places: slice) -> None:
        """Turn the logits of a tile into their gradient, in place."""
        inside = (columns >= 0) & (columns < logits.shape[1])
        columns = columns.clamp(0, logits.shape[1] - 1)
        bend = None  # that of an impossible id would be -inf
        if self.cap is not None:
            bend = (logits / self.cap).square_().neg_().add_(1).clamp_min_(0)
        logits.sub_(self.best[places, None]).clamp_(min=DEEP)
        slope = self.constant[places, None]
        if self.factor is not None:
            slope = torch.addcmul(slope, logits, self.factor[places, None])
        torch.threshold_(logits.exp_(), 2 * exp(DEEP), 0.0).mul_(slope)
        target = torch.where(inside, self.target[places], 0.0)
        logits.scatter_add_(1, columns[:, None], target[:, None])
        if bend is not None:
            logits.mul_(bend)


def _pieces(size: int, most: int) -> Iterator[slice]:
    return (slice(start, min(start + most, size)) for start in range(0, size, most))


def _is_first_best(logits: Tensor, highest: Tensor, own: Tensor, columns: Tensor) -> Tensor:
    """Whether the target is the first of the most likely ids of a tile, [m] bool."""
    if logits.device.type != "cpu":
        return logits.argmax(1) == columns
    reached = own >= highest  # an argmax of all rows would take ten times as long as ``amax``
    rows = reached.nonzero().squeeze(1)
    return reached.index_fill(0, rows[logits[rows].argmax(1) != columns[rows]], False)


def _accumulator(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """Where the gradient of some weights is summed up: in place, or in a wider type."""
    return gradient if gradient.dtype == dtype else torch.zeros_like(gradient, dtype=dtype)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(_wide_product(left, right))


def _wide_product(left: Tensor, right: Tensor) -> Tensor:
    """A matrix product in float32 or better; its sums are so on all devices."""
    if left.dtype in {torch.float32, torch.float64}:
        return left @ right
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return (left @ right).float()
