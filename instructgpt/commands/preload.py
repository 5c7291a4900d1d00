"""Imported once by the fork server, so that no stage pays for these seconds again.

Also what is imported late elsewhere, as few runs need it: of all stages of a pipeline, some do.
An import that fails is told and left to the stages, where it ends in the usual way.
"""

# ruff: noqa: F401  each import is for those who come later

import gc
import traceback

from instructgpt.terminal import say

gc.disable()  # nothing of what is loaded is garbage
try:
    import attrs
    import matplotlib.pyplot
    import numpy.random
    import pyarrow
    import torch.fx.experimental.symbolic_shapes
    import torch.utils.tensorboard
    import transformers.modeling_layers

    import instructgpt.cli
    import instructgpt.commands.chat
    import instructgpt.commands.evaluate
    import instructgpt.commands.generate
    import instructgpt.commands.label
    import instructgpt.commands.world
except Exception:
    say("instructgpt: not all could be imported ahead:", error=True)
    traceback.print_exc()
gc.enable()
gc.collect()
gc.freeze()  # a child's collector does not touch, and so not copy, what it shares
