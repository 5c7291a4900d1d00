"""Modules that libraries load when they are imported, and that a run hardly ever needs.

``torch._dynamo`` (for ``torch.compile``), what it needs of sympy, and the plots of torchmetrics are
more than a third of what the command line loads before it starts. Lightning and transformers want
a class to ask ``isinstance`` of, decorators, and names for annotations from them. ``defer`` puts
stand-ins for just these in their place. Whatever else is asked of such a module loads the real one
in the usual way; the stand-ins are then replaced by what they stand for wherever they lie in a
module, and where one was kept elsewhere it hands on.

Only our command line calls ``defer``, before it imports Lightning; ``import instructgpt`` in a
program changes nothing. ``tests/test_deferred.py`` holds all of it against the libraries.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import Any


class _Deferred(ModuleType):
    """In the place of a module that was imported and is not needed yet."""

    _stand_ins: dict[str, Any]
    _replay: list[Callable[[ModuleType], object]]  # what was asked for and has to be done for real

    def __getattr__(self, name: str) -> Any:
        if name in self._stand_ins and name not in _FINDER.loaded:
            return self._stand_ins[name]
        if name.startswith("__") and name != "__path__":  # asked of every module, as by inspect
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(_real(self.__name__), name)
