"""A small stage that learns from rankings, and who loads its reference."""

from descent import sgd

from instructgpt.algorithms.schedule import Constant
from instructgpt.modules import reference
from instructgpt.modules.preference import PreferenceModule


def make(source, **options):
    defaults = {"optimizer": sgd, "schedule": Constant(), "validation_prompts": 0}
    return PreferenceModule(init_from=source, **{**defaults, **options})


def metrics_of(trainer):
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def loaded(monkeypatch):
    """Notes every copy of the reference that is loaded."""
    seen = []
    original = reference.load_reference

    def load(*args, **options):
        seen.append(args[0])
        return original(*args, **options)

    monkeypatch.setattr(reference, "load_reference", load)
    return seen
