"""Imported once by the fork server, so that no stage pays for these seconds again.

An import that fails is told and left to the stages, where it ends in the usual way.
"""

# ruff: noqa: F401  each import is for those who come later

import gc
import traceback

from instructgpt.deferred_private import quick_imports
from instructgpt.terminal import say

try:
    with quick_imports():
        import attrs
        import pyarrow
        import torch.utils.tensorboard
        import transformers.modeling_layers

        import instructgpt.cli
        import instructgpt.commands.evaluate
        import instructgpt.commands.generate
        import instructgpt.commands.label
        import instructgpt.commands.world
except Exception:
    say("instructgpt: not all could be imported ahead:", error=True)
    traceback.print_exc()
gc.collect()
gc.freeze()  # a child's collector does not touch, and so not copy, what it shares
