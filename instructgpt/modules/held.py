"""What networks hold in memory all the time, by the sizes of their weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn

from instructgpt.models.quantized import packed_parameters
from instructgpt.models.shards import layers_apart

ADAM = 2  # moments of a weight


class Held(NamedTuple):
    """What a network has in memory all the time, and its gradients."""

    parameters: int
    trained: int
    weights: int  # bytes
    gradients: int
    block: int = 0  # bytes of the weights of its largest layer
    rest: int = 0  # of those that are in no layer

    @property
    def moments(self) -> int:
        """Bytes of Adam's state."""
        return ADAM * self.gradients

    def cut(self, count: int) -> Held:
        """What a device has where so many cut each layer, of which all is trained or nothing.

        Norms, which each has whole, are too small to count.

        Args:
            count: of the devices.

        Examples:
            >>> Held(100, 100, 400, 400, block=70, rest=40).cut(2)
            Held(parameters=100, trained=100, weights=220, gradients=220, block=35, rest=40)
        """
        if count == 1:
            return self
        weights = self.rest + (self.weights - self.rest) // count
        gradients = self.gradients * weights // max(1, self.weights)
        block = self.block // count
        return self._replace(weights=weights, gradients=gradients, block=block)


def held(network: nn.Module) -> Held:
    """Count a network."""
    parameters = list(network.parameters())
    trained = [p for p in parameters if p.requires_grad]
    weights = bytes_of(parameters)
    layers = [bytes_of(layer.parameters()) for layer in layers_apart(network)]
    return Held(
        sum(p.numel() for p in parameters) + packed_parameters(network),
        sum(p.numel() for p in trained),
        weights,
        bytes_of(trained),
        max(layers, default=0),
        weights - sum(layers),
    )


def bytes_of(weights: Iterable[Tensor]) -> int:
    """Bytes of weights together."""
    return sum(weight.numel() * weight.element_size() for weight in weights)


def bytes_beside(network: nn.Module, other: nn.Module) -> int:
    """Bytes of the weights of a network that are not also those of another one."""
    there = {id(weight) for weight in other.parameters()}
    shared = [weight for weight in network.parameters() if id(weight) in there]
    return held(network).weights - bytes_of(shared)
