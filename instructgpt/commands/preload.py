"""Imported once by the fork server, so that no stage pays for these seconds again.

An import that fails is told and left to the stages, where it ends in the usual way.
"""

import gc
import traceback

from instructgpt.terminal import say

try:
    import attrs  # noqa: F401
    import transformers.modeling_layers  # noqa: F401

    import instructgpt.cli
    import instructgpt.commands.evaluate
    import instructgpt.commands.generate
    import instructgpt.commands.label
    import instructgpt.commands.world  # noqa: F401
except Exception:
    say("instructgpt: not all could be imported ahead:", error=True)
    traceback.print_exc()
gc.collect()
gc.freeze()  # a child's collector does not touch, and so not copy, what it shares
