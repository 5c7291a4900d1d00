"""Exponential moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage(nn.Module):
    """Averages the trained parameters of a network (with an adapter, the adapter's only).

    Args:
        network: whose weights are averaged.
        decay: share of the old average that each update keeps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start at the weights as they are."""
        super().__init__()
        self.decay = decay
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                self.register_buffer(name.replace(".", "/"), parameter.detach().clone())

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards the weights as they are now."""
        for average, parameter in self._pairs(network):
            average.lerp_(parameter.detach(), 1 - self.decay)

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Within the context the network has the averaged weights."""
        with torch.no_grad():
            kept = [parameter.detach().clone() for _, parameter in self._pairs(network)]
            for average, parameter in self._pairs(network):
                parameter.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for old, (_, parameter) in zip(kept, self._pairs(network), strict=True):
                    parameter.copy_(old)

    def _pairs(self, network: nn.Module) -> Iterator[tuple[torch.Tensor, nn.Parameter]]:
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                yield self.get_buffer(name.replace(".", "/")), parameter
