"""A process that dies, fails or hangs ends the run of all, in a line that names it and its place.

Without this the others wait in a collective operation: until the connection breaks, which gives
a traceback of gloo or NCCL, or until its timeout, half an hour, which names nobody.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from instructgpt.callbacks.signals import Interrupted
from instructgpt.terminal import say
from instructgpt.types import RunFailedError, UserError, require

BEAT = 0.5  # seconds
CONNECTION = timedelta(seconds=10)
GATHERING = 10.0  # seconds in which all who waited in vain say so
BROKEN = ("gloo", "nccl", "connection", "timed out", "timeout", "recv", "peer", "store")
"""What errors of communication have in their text; they are plain RuntimeErrors."""


class LostRanks(Callback):
    """Ends the run when one of its processes dies, or stops to answer.

    Each process says where it is, in the store of the process group, and the first looks whether
    all go on doing so. One that fails says that there, too, and the others end: they may wait for
    it in the middle of a layer of ``fsdp2``. A process that lives but never comes to where the
    others wait is found when their operation times out: ``--trainer.strategy DDPStrategy
    --trainer.strategy.timeout 0:05:00``, of FSDP2Strategy
    ``timeout_seconds`` (default: half an hour).

    Args:
        silent: seconds without a sign of life after which a process counts as lost.
    """

    def __init__(self, silent: float = 120.0) -> None:
        require(silent >= 4 * BEAT, "silent", f">= {4 * BEAT}", silent)
        self.silent = silent
        self.place = "getting ready"
        self._watch: _Watch | None = None

    # -- where this process is

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to watch, now that the processes know each other."""
        if trainer.world_size > 1 and dist.is_initialized() and self._watch is None:
            self._watch = _Watch(self, trainer)
            self._watch.start()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A step, or the rollout before it."""
        place = f"step {trainer.global_step + 1}"
        phase, number = getattr(pl_module, "phase", None), trainer.current_epoch
        if phase is not None and not phase.holds(number):
            place = f"the rollout of phase {number + 1}, before {place}"
        self._at(place)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        """A rollout is over when there is a loss."""
        self._at(f"step {trainer.global_step + 1}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation."""
        self._at(f"the validation after step {trainer.global_step}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What follows is the export."""
        self._at("the end of the run")

    def _at(self, place: str) -> None:
        if place != self.place and self._watch is not None:
            self._watch.store.set(f"place/{self._watch.rank}", place)
        self.place = place

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The processes part."""
        self._stop()

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.over.set()
        self._watch = None

    # -- what went wrong

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Find out who is missing where this process waited in vain.

        Raises:
            RunFailedError: with the name of the lost process; elsewhere this one ends in silence.
        """
        watch = self._watch
        self._stop()
        text = str(exception).lower()
        ours = isinstance(exception, UserError) or not isinstance(exception, RuntimeError)
        if watch is None:
            return
        if ours or not any(word in text for word in BROKEN):
            if isinstance(exception, Exception):  # else all are stopped, one way or another
                watch.tell_failure(exception)
            return
        lost = watch.who_is_missing()
        if lost and watch.first_to_tell():
            raise RunFailedError(lost) from exception
        if lost:
            raise Interrupted("", 1) from exception


class _Watch(threading.Thread):
    """Says where this process is, and in the first one looks after the others.

    Args:
        callback: knows where this process is.
        trainer: of the run.
    """

    def __init__(self, callback: LostRanks, trainer: Trainer) -> None:
        super().__init__(daemon=True, name="lost-ranks")
        self.callback, self.rank, self.size = callback, trainer.global_rank, trainer.world_size
        launcher = trainer.strategy.launcher
        self.children = list(getattr(launcher, "procs", []))  # of Lightning's own launcher
        self.over = threading.Event()
        self.heard: dict[int, tuple[str, float]] = {}  # of each rank the beat, and its age
        self.failed = ""  # what another process has said of its failure
        self.store = _connect()

    def run(self) -> None:
        """Beat until the run is over or somebody is lost."""
        beats, lost = 0, ""
        while not self.over.wait(BEAT):
            beats += 1
            try:
                self.store.set(f"beat/{self.rank}", str(beats))
                self.failed = self._failed()
                if self.rank == 0 and not self.failed:
                    lost = self._lost(self.callback.silent)
            except RuntimeError:  # the first process has the store: it is gone
                return
            if self.failed and not self.over.wait(GATHERING):
                self._end(self.failed if self.first_to_tell() else "")
            if lost and not self.over.wait(4 * BEAT) and self.first_to_tell():
                self._end(lost)

    def _end(self, line: str) -> None:
        """End this process, whose main thread waits in an operation that nothing can end."""
        if line:
            say(f"instructgpt: error: {line}", error=True)
        for child in self.children:
            child.send_signal(signal.SIGKILL)
        os._exit(1)

    def tell_failure(self, error: Exception) -> None:
        """Have the others know that this process fails, and what it did."""
        what = (f"{error}".splitlines() or [""])[0][:200]
        line = f"rank {self.rank} failed in {self.callback.place}: {type(error).__name__}: {what}"
        with suppress(RuntimeError):
            self.store.set("failed", line)
            if self.rank == 0:  # with it goes the store: the others must have read it
                time.sleep(2 * BEAT)

    def _failed(self) -> str:
        """What another process has said of its failure, else ""."""
        said = self.store.get("failed").decode() if self.store.check(["failed"]) else ""
        return "" if said.startswith(f"rank {self.rank} ") else said

    def _lost(self, silent: float) -> str:
        """What is to be said of a process that is gone, else ""."""
        for number, child in enumerate(self.children, start=1):
            if code := child.poll():
                how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
                return f"rank {number} {how}, in {self._place(number)}"
        for rank in range(self.size):
            if rank != self.rank and self._age(rank) > silent:
                return f"rank {rank} gives no sign of life since {self._place(rank)}"
        return ""

    def _age(self, rank: int) -> float:
        """Seconds, of beats of this process, since another was heard of.

        Not those of the clock: a machine may have slept.
        """
        key = f"beat/{rank}"
        beat = self.store.get(key).decode() if self.store.check([key]) else ""
        before, age = self.heard.get(rank, ("", 0.0))
        self.heard[rank] = (beat, age + BEAT if beat == before else 0.0)
        return self.heard[rank][1]

    def _place(self, rank: int) -> str:
        key = f"place/{rank}"
        return self.store.get(key).decode() if self.store.check([key]) else "getting ready"

    def who_is_missing(self) -> str:
        """Who is not among those that waited in vain, and where it was; "" if nobody is."""
        if self.failed:
            return self.failed
        try:
            if failed := self._failed():
                return failed
            self.store.set(f"waited/{self.rank}", "")
            deadline = time.monotonic() + GATHERING
            while time.monotonic() < deadline:
                missing = [r for r in range(self.size) if not self.store.check([f"waited/{r}"])]
                if not missing:
                    return ""
                if self.rank == 0 and (lost := self._lost(4 * BEAT)):
                    return lost
                if self.store.check(["told"]):
                    return "told by another"
                time.sleep(BEAT)
            first = missing[0]
            return f"rank {first} did not come to where the others waited: {self._place(first)}"
        except RuntimeError:
            return f"rank 0 is gone, in {self.callback.place}"

    def first_to_tell(self) -> bool:
        """Whether no other process has named the lost one."""
        try:
            return self.store.add("told", 1) == 1
        except RuntimeError:
            return True


def _connect() -> Any:
    """A connection of our own to the store of the process group, which may be waiting in its."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, timeout=CONNECTION)
    return dist.PrefixStore(f"lost/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
