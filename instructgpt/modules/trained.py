"""What a checkpoint holds of the weights: what is trained. The rest lies where it came from."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn


def drop_frozen(module: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Take out the weights that training leaves as they are, such as those beside an adapter.

    Args:
        module: whose checkpoint it is.
        checkpoint: with ``state_dict``; changed.
    """
    for name in _frozen(module):
        checkpoint["state_dict"].pop(name, None)


def add_frozen(module: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Put them back, as they were loaded from where the checkpoint's run had them from.

    Args:
        module: that is to load the checkpoint.
        checkpoint: with ``state_dict``; changed.
    """
    for name, weight in _frozen(module).items():
        checkpoint["state_dict"].setdefault(name, weight)


def has_trainer(module: LightningModule) -> bool:
    """Whether a module is in a run, and not loaded by hand.

    Args:
        module: any.
    """
    try:
        return module.trainer is not None
    except RuntimeError:  # what Lightning says there is none with
        return False


def _frozen(module: nn.Module) -> dict[str, Tensor]:
    everything = module.named_parameters(remove_duplicate=False)  # tied ones have two names
    return {name: weight.detach() for name, weight in everything if not weight.requires_grad}
