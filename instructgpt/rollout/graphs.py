"""CUDA graphs: what a step sends to the device, recorded once and sent again in one piece."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec

import torch

P = ParamSpec("P")


class Graphs:
    """Steps of decoding, each kind of which is recorded when it is first met.

    A small step takes a GPU less time than it takes Python to send its kernels one by one.

    Args:
        name: of the network, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name, self._works = name, True
        self._pool = torch.cuda.graph_pool_handle()
        self._known: dict[Hashable, torch.cuda.CUDAGraph] = {}

    def run(self, kind: Hashable, step: Callable[P, None], *args: P.args, **more: P.kwargs) -> None:
        """Do a step, which reads and writes the same tensors whenever it is of the same kind.

        Args:
            kind: of the step; what sizes follow from.
            step: that waits for nothing.
            *args: of the step.
            **more: of the step.
        """
        if self._works and kind not in self._known:
            graph, device = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
            stream = torch.cuda.Stream()
            stream.wait_stream(device)
            try:
                with torch.cuda.stream(stream), _uncached():
                    graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                    try:
                        step(*args, **more)
                    finally:
                        graph.capture_end()
            except Exception as error:  # whatever an architecture does that waits for the device
                self._works = False
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                line = f"{self._name} is decoded without CUDA graphs, which takes longer: {reason}"
                warnings.warn(line, stacklevel=2)
            else:
                self._known[kind] = graph
            device.wait_stream(stream)
        if self._works:
            self._known[kind].replay()
        else:
            step(*args, **more)


def _uncached() -> AbstractContextManager[None]:
    """Weights are cast anew: autocast's copies of them do not live as long as a graph."""
    if not torch.is_autocast_enabled("cuda"):
        return nullcontext()
    kind = torch.get_autocast_dtype("cuda")
    return torch.autocast("cuda", dtype=kind, cache_enabled=False)
