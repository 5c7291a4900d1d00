"""The whole configuration of a run in its folder, and nothing of an earlier run beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from instructgpt.callbacks.common import is_debugging
from instructgpt.models.checkpoint import LAST, PREVIOUS
from instructgpt.models.folder import sync_folder, write_text

EARLIER = (*(f"checkpoints/{name}" for name in ("best.ckpt", LAST, PREVIOUS)), "metrics.json")
"""What must not be taken for this run's; export/ stays until there is another one."""


class ConfigWriter(Callback):
    """Writes ``config.yaml``, from which ``fit --config`` repeats or continues the run.

    Checkpoints hold the configuration too, so that a resume can be compared with it.

    Args:
        config: the configuration.
        text: the same as YAML.
        folder: of the run; the TensorBoard events in it now are those of earlier runs.
        changes: what resumes have changed, a line each.
    """

    def __init__(self, config: dict[str, Any], text: str, folder: str, changes: list[str]) -> None:
        self.config, self.changes = config, changes
        self.text = text + "".join(f"# {change}\n" for change in changes)
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
            sync_folder(folder / "checkpoints")
        write_text(folder / "config.yaml", self.text)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the configuration."""
        known = checkpoint.setdefault("instructgpt", {})
        known.update(config=self.config, changes=self.changes)
