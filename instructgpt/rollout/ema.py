"""Exponential moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from instructgpt.models.shards import part_of, whole


class WeightAverage:
    """Averages the trained parameters of a network (with an adapter, the adapter's only).

    In float32, because a small step rounds to nothing in half precision; and no module, because DDP
    would send buffers around at every step.

    Args:
        network: whose weights are averaged; the average starts there.
        decay: share of the old average that each update keeps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.start(network)

    def start(self, network: nn.Module) -> None:
        """Be what a network is.

        Args:
            network: as it is to be averaged, with its weights.
        """
        self.weights = {name: p.detach().float().clone() for name, p in _trained(network)}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards the weights as they are now."""
        for name, parameter in _trained(network):
            average = part_of(self.weights[name].to(parameter.device), parameter)
            self.weights[name] = average.lerp_(parameter.detach().float(), 1 - self.decay)

    def whole(self) -> dict[str, Tensor]:
        """The average, of networks that are spread over ranks too; every rank must call this."""
        return {name: whole(average) for name, average in self.weights.items()}

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Within the context the network has the averaged weights."""
        kept = {name: p.detach().clone() for name, p in _trained(network)}
        _copy(self.weights, network)
        try:
            yield
        finally:
            _copy(kept, network)


def _trained(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in network.named_parameters() if p.requires_grad)


@torch.no_grad()
def _copy(weights: dict[str, Tensor], network: nn.Module) -> None:
    for name, parameter in _trained(network):
        parameter.copy_(weights[name])
