"""Calling a network whose weights are spread over ranks by other functions than ``forward``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

CALL = "call_gathered"
"""Method of such a network that calls a function with the weights of all ranks at hand."""


def is_spread(network: Any) -> bool:
    """Whether the weights of a network are spread over ranks."""
    return hasattr(network, CALL)


def as_forward(function: Function) -> Function:
    """Have a function of a network count as its forward pass, as FSDP2 must know when it begins.

    Args:
        function: whose first argument is a network.
    """

    @wraps(function)
    def call(network: Any, *args: Any, **kwargs: Any) -> Any:
        through = getattr(network, CALL, None)
        if through is None:
            return function(network, *args, **kwargs)
        return through(partial(function, network, *args, **kwargs))

    return call  # type: ignore[return-value]
