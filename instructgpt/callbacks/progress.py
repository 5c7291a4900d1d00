"""How far a run is, how fast, and how long it will take."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Protocol

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from instructgpt.callbacks.common import stage_of
from instructgpt.callbacks.throughput import Throughput
from instructgpt.modules.clock import time_left
from instructgpt.rollout.metrics import phase_note
from instructgpt.terminal import duration, printable, say

REDRAW_SECONDS = 0.2
LINE_SECONDS = 10.0


class Display(Protocol):
    """Where progress is shown: a bar or a line for each thing that goes on."""

    def show(
        self, name: str, done: int, total: int | None, note: str = "", left: float | None = None
    ) -> None:
        """Show that ``done`` of ``total`` (None: not known) steps of something are done.

        ``left`` are the seconds it still takes, where more than its steps go into them.
        """

    def hide(self, name: str) -> None:
        """That thing is over."""

    def close(self) -> None:
        """Everything is over."""


class Silent:
    """Shows nothing: all ranks but the first."""

    def show(
        self, name: str, done: int, total: int | None, note: str = "", left: float | None = None
    ) -> None:
        """Show nothing."""

    def hide(self, name: str) -> None:
        """Hide nothing."""

    def close(self) -> None:
        """Close nothing."""


class Bars:
    """Rich bars, for a terminal.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            _Left(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def show(
        self, name: str, done: int, total: int | None, note: str = "", left: float | None = None
    ) -> None:
        """Move the bar."""
        name, note = printable(name), printable(note)
        if not self._progress.live.is_started:
            self._progress.start()
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, note=note, left=left)
        self._progress.update(self._tasks[name], completed=done, total=total, note=note, left=left)

    def hide(self, name: str) -> None:
        """Remove the bar."""
        if printable(name) in self._tasks:
            self._progress.remove_task(self._tasks.pop(printable(name)))

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()
        self._tasks = {}


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Steps a second, as rich measures them over the last half minute."""
        return Text(_rate(task.finished_speed or task.speed), style="progress.data.speed")


class _Left(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        """The time left that was told, else as rich estimates it."""
        if task.fields["left"] is None:
            return super().render(task)
        return Text(duration(task.fields["left"]), style="progress.remaining")


class Lines:
    """A plain line now and then, for log files.

    Args:
        seconds: from one line to the next; default: INSTRUCTGPT_LINE_SECONDS of the environment,
            by which the pipeline asks for more of them, else 10.
    """

    def __init__(self, seconds: float | None = None) -> None:
        given = float(os.environ.get("INSTRUCTGPT_LINE_SECONDS", LINE_SECONDS))
        self.seconds = given if seconds is None else seconds
        self._starts: dict[str, tuple[float, int]] = {}
        self._last = time.monotonic()

    def show(
        self, name: str, done: int, total: int | None, note: str = "", left: float | None = None
    ) -> None:
        """Print when it is time to."""
        now = time.monotonic()
        begin, first = self._starts.setdefault(name, (now, done))
        if now - self._last < self.seconds:
            return
        self._last = now
        speed = (done - first) / (now - begin) if now > begin else None
        parts = [f"{name} {done}/{total if total is not None else '?'}", _rate(speed)]
        if left is None and speed and total is not None:
            left = (total - done) / speed
        if left is not None:
            parts.append(f"{duration(left)} left")
        say("  ".join(part for part in [*parts, note] if part))

    def hide(self, name: str) -> None:
        """Forget when that thing began."""
        self._starts.pop(name, None)

    def close(self) -> None:
        """Forget everything."""
        self._starts = {}


def _rate(speed: float | None) -> str:
    if not speed:
        return ""
    return f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f}s each"


def display() -> Display:
    """Bars where somebody watches, else lines."""
    return Bars() if sys.stdout.isatty() else Lines()


class StageProgress(ProgressBar):
    """A bar for the fit in optimizer steps, and one for what happens inside a step or a validation.

    Without a terminal, a plain line every ten seconds instead.
    """

    def __init__(self) -> None:
        super().__init__()
        self.display = display()
        self._drawn = 0.0
        self._part = ""
        self._begun: tuple[float, int] | None = None  # when the fit began, and at which step

    def disable(self) -> None:
        """Show nothing from now on."""
        self.display.close()
        self.display = Silent()

    def enable(self) -> None:
        """Show again (Lightning's tuner asks for it)."""
        self.display = display()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the module report what it does inside a step."""
        super().setup(trainer, pl_module, stage)
        stage_of(pl_module).progress = self.part

    def part(self, name: str, done: int, total: int) -> None:
        """Report on one part of something long.

        Args:
            name: of the part.
            done: steps of it.
            total: steps of it.
        """
        name = f"  {name}"
        if name != self._part:
            self.display.hide(self._part)
            self._part = name
        if due := self._due() or done >= total:
            self.display.show(name, done, total)
        if done >= total:
            self.display.hide(name)
        if due and self._begun is not None:  # the time left goes down during a rollout, too
            self._show_fit(self.trainer)

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self._drawn < REDRAW_SECONDS:
            return False
        self._drawn = now
        return True

    def _notes(self, trainer: Trainer) -> str:
        shown = trainer.progress_bar_metrics.items()
        notes = [" ".join(f"{name.removeprefix('train/')} {value:.3g}" for name, value in shown)]
        notes += [
            f"{callback.rate:,.0f} tokens/s"
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            if isinstance(callback, Throughput) and callback.rate
        ]
        notes.append(phase_note({k: float(v) for k, v in trainer.callback_metrics.items()}))
        return "  ".join(note for note in notes if note)

    def _show_fit(self, trainer: Trainer) -> None:
        stage, step = stage_of(trainer.lightning_module), trainer.global_step
        steps = trainer.estimated_stepping_batches
        total = None if steps == float("inf") else int(steps)
        begun, first = self._begun or (time.monotonic(), step)
        left = (
            None
            if total is None
            else time_left(
                step - first,
                total - step,
                time.monotonic() - begun,
                stage.rollout_clock,
                stage.rollouts_left(),
            )
        )
        self.display.show("fit", step, total, self._notes(trainer), left)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show where the run starts, which need not be 0."""
        self._begun = (time.monotonic(), trainer.global_step)
        self._show_fit(trainer)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Move the bar of the fit."""
        if self._due():
            self._show_fit(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the last step."""
        self._show_fit(trainer)
        self._begun = None
        self.display.close()

    def _show_evaluation(self, name: str, batch_idx: int, counts: int | float | list[Any]) -> None:
        total = sum(counts) if isinstance(counts, list) else counts
        if self._due():
            self.display.show(name, batch_idx + 1, None if total == float("inf") else int(total))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Move the bar of a validation."""
        self._show_evaluation("  validation", batch_idx, trainer.num_val_batches)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the bar."""
        self.display.hide("  validation")
        if trainer.state.fn == "validate":
            self.display.close()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Move the bar of a test."""
        self._show_evaluation("test", batch_idx, trainer.num_test_batches)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the screen to the results."""
        self.display.close()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Move the bar of the predictions."""
        self._show_evaluation("predict", batch_idx, trainer.num_predict_batches)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the screen."""
        self.display.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: Any) -> None:
        """Leave the screen to the message."""
        self.display.close()
