"""All that we take from the inside of peft (0.21), each with the reason why.

``tests/test_private_members.py`` says what breaks when an upgrade removes one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:  # peft takes a moment to load, and is not needed without an adapter
    from peft import PeftModel
    from typing_extensions import TypeIs


def is_adapted(model: nn.Module) -> TypeIs[PeftModel]:
    """Whether a model has an adapter; as long as nobody has imported peft, none has.

    Args:
        model: any.
    """
    return isinstance(model, getattr(sys.modules.get("peft"), "PeftModel", ()))


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Switch adapters off.

    Peft's own switch would freeze them, and on the way back unfreeze those that were frozen.

    Args:
        model: with an adapter or without.
    """
    if not is_adapted(model):
        yield
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    before = [layer._disable_adapters for layer in layers]
    prefix_before = model._adapters_disabled
    for layer in layers:
        layer._disable_adapters = True
    model._adapters_disabled = True
    try:
        yield
    finally:
        for layer, state in zip(layers, before, strict=True):
            layer._disable_adapters = state
        model._adapters_disabled = prefix_before


def is_switched_off(model: PeftModel) -> bool:
    """Whether a model runs without its adapters; the status peft has counts all layers."""
    return bool(model._adapters_disabled)
