"""The functions of the plain verbs, which import what they need when they are called."""

from __future__ import annotations

from instructgpt.commands.cache import cache
from instructgpt.commands.evaluate import evaluate
from instructgpt.commands.export import export
from instructgpt.commands.generate import generate
from instructgpt.commands.label import label
from instructgpt.commands.prepare import prepare
from instructgpt.commands.world import world

VERBS = (prepare, world, generate, label, evaluate, export, cache)
FUNCTIONS = {verb.__name__: verb for verb in VERBS}
"""All but ``pipeline``, which reads its options itself and runs these."""
