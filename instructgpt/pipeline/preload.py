"""Imported once by the fork server, so that no stage pays for these seconds again.

An import that fails is told and left to the stages, where it ends in the usual way.
"""

from __future__ import annotations

import gc
import traceback
from importlib import import_module

from instructgpt.terminal import say

MODULES = (
    "attrs",
    "torch.utils.tensorboard",
    "transformers.modeling_layers",
    "instructgpt.__main__",
    "instructgpt.cli",
    "instructgpt.commands.world",
    "instructgpt.commands.generate",
    "instructgpt.commands.label",
    "instructgpt.commands.evaluate",
)


def preload() -> None:
    """Import everything that stages import."""
    for name in MODULES:
        try:
            import_module(name)
        except Exception:
            say(f"instructgpt: {name} could not be imported ahead:", error=True)
            traceback.print_exc()
    gc.collect()
    gc.freeze()  # a child's collector does not touch, and so not copy, what it shares


preload()
