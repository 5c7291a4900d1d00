"""What a signal does to a trainer's verb; a training that has begun saves first (checkpoint.py)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from types import FrameType

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # the last, as clusters are told to


class Interrupted(BaseException):
    """The run was stopped from outside; says what there is of it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(*([message] if message else []))
        self.exit_code = exit_code


@contextmanager
def stoppable(trainer: Trainer) -> Iterator[None]:
    """Have a signal end what follows with a line, whatever it is at, and a second one at once.

    Lightning takes note of SIGTERM and ends a run after its step, saved or not, or a validation,
    with exit code 0, and a prediction not at all.

    Args:
        trainer: of the run.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process, launcher = os.getpid(), trainer.strategy.launcher

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a fork, such as one that reads rows: as if we were not here
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        first = trainer.is_global_zero
        for one in SIGNALS:  # Ctrl-C and the first process may both tell the others
            signal.signal(one, signal.SIG_DFL if first else signal.SIG_IGN)
        if launcher is not None:
            launcher.kill(number)
        # Only the first process tells the shell: for another's code its launcher would kill it.
        raise Interrupted(what_is_left(trainer) if first else "", 128 + number if first else 0)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    except Interrupted:
        if launcher is not None:  # those that wait for this one
            launcher.kill(signal.SIGKILL)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def what_is_left(trainer: Trainer) -> str:
    """What to say of a verb that was stopped where it saves nothing."""
    if trainer.state.fn not in (None, TrainerFn.FITTING):
        return f"{trainer.state.fn.value} was stopped: the same command does it"
    if getattr(trainer.checkpoint_callback, "saved_step", -1) >= 0:  # training is over
        return how_to_go_on(trainer)
    if trainer.ckpt_path:
        return f"stopped with nothing new saved: the same command goes on from {trainer.ckpt_path}"
    return "stopped with nothing saved: the same command begins anew"


def how_to_go_on(trainer: Trainer) -> str:
    """What to say of a run whose state is saved."""
    config = Path(trainer.default_root_dir, "config.yaml")
    return (
        f"stopped after step {trainer.global_step}; to go on:\n"
        f"  python -m instructgpt fit --config {quote(str(config))} --ckpt_path last"
    )
