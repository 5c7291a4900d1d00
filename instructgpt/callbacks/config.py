"""The whole configuration of a run in its folder, and nothing of an earlier run beside it."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from instructgpt.callbacks.common import is_debugging
from instructgpt.models.folder import write_text

EARLIER = ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.json")
"""What must not be taken for this run's; export/ stays until there is another one."""


class ConfigWriter(Callback):
    """Writes ``config.yaml``, from which ``fit --config`` repeats or continues the run.

    Args:
        text: the configuration as YAML.
        folder: of the run; the TensorBoard events in it now are those of earlier runs.
    """

    def __init__(self, text: str, folder: str) -> None:
        self.text = text
        self._earlier_events = list(Path(folder).glob("events.out.tfevents.*"))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write once everything that can be wrong with the input has been looked at."""
        if not trainer.is_global_zero or is_debugging(trainer):
            return
        folder = Path(trainer.default_root_dir)
        if trainer.ckpt_path is None:
            # Before the new configuration stands there: it must never lie beside an old state.
            for path in (*(folder / name for name in EARLIER), *self._earlier_events):
                path.unlink(missing_ok=True)
        write_text(folder / "config.yaml", self.text)
