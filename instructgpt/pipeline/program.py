"""What a stage runs, as far as the pipeline knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

Functions = Mapping[str, Callable[..., None]]
"""Plain verbs by name, whose parameters are the options of a stage."""


class Program(NamedTuple):
    """What a stage runs, named by who calls the pipeline, which knows no verb but by its name.

    ``entry`` is a module and a function, ``package.module:function``, that takes the command line,
    the verb first, and returns the exit code. ``functions`` are the plain verbs it can run.
    ``preload`` is a module that is imported once for all stages; "" for none.
    """

    entry: str
    functions: Functions
    preload: str = ""
