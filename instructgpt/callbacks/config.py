"""The whole configuration of a run in its folder."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from instructgpt.callbacks.common import is_debugging, write_text


class ConfigWriter(Callback):
    """Writes ``config.yaml``, from which ``fit --config`` repeats or continues the run.

    Args:
        text: the configuration as YAML.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write once everything that can be wrong with the input has been looked at."""
        if trainer.is_global_zero and not is_debugging(trainer):
            write_text(Path(trainer.default_root_dir, "config.yaml"), self.text)
