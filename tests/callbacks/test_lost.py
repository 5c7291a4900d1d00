"""A process that dies or hangs: one line says which, and what it did; nothing waits for it."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress

import pytest
from harness import run_processes
from toy_stage import ToyModule, toy_args

from instructgpt.__main__ import main
from instructgpt.callbacks import lost

RANKS = ["--trainer.devices=2", "--trainer.strategy=ddp"]


def at_step(monkeypatch, step, act, rank=1):
    """Let something befall one rank before the optimizer step after ``step`` others."""
    original = ToyModule.training_step

    def training_step(self, rows, batch_idx):
        if self.trainer.global_step == step and self.trainer.global_rank == rank:
            act()
        return original(self, rows, batch_idx)

    monkeypatch.setattr(ToyModule, "training_step", training_step)


def survivor(folder, *options, lost_rank):
    """Run two ranks; what the one that is not lost ends with and says.

    The lost one is ended then, if it still stands somewhere.
    """
    said, answer, pid = (folder / name for name in ("said.txt", "answer.txt", "pid.txt"))

    def rank():
        if int(os.environ["RANK"]) == lost_rank:
            pid.write_text(str(os.getpid()))
        else:
            sys.stderr = said.open("w", buffering=1)
        code = main(toy_args("--output", str(folder / "run"), *RANKS, *options))
        answer.write_text(str(code))

    def end():
        while not (answer.exists() or (said.exists() and "instructgpt: " in said.read_text())):
            time.sleep(0.1)
        time.sleep(1.0)
        with suppress(ProcessLookupError):
            os.kill(int(pid.read_text()), signal.SIGKILL)

    threading.Thread(target=end, daemon=True).start()
    with pytest.raises(AssertionError) as error:
        run_processes(rank, timeout=90)
    assert "Traceback" not in str(error.value), error.value
    lines = [line for line in said.read_text().splitlines() if line.startswith("instructgpt: ")]
    return answer.read_text() if answer.exists() else None, lines


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_is_named(tmp_path, monkeypatch, rank):
    at_step(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGKILL), rank)
    code, lines = survivor(tmp_path, lost_rank=rank)
    assert code == "1"
    assert len(lines) == 1
    what = "gives no sign of life since step 3" if rank else "is gone, in step 3"
    assert lines[0] == f"instructgpt: error: rank {rank} {what}"


def test_a_rank_that_stands_still_is_named(tmp_path, monkeypatch):
    """As by a machine that is switched off: no connection breaks."""
    at_step(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    monkeypatch.setattr(lost.LostRanks.__init__, "__defaults__", (3.0,))
    code, lines = survivor(tmp_path, lost_rank=1)
    assert code is None, "it has ended in the middle of an operation"
    assert lines == ["instructgpt: error: rank 1 gives no sign of life since step 3"]


def test_a_rank_that_hangs_is_named_when_the_others_give_up(tmp_path, monkeypatch):
    """It lives, but never comes to where the others wait."""
    at_step(monkeypatch, 2, lambda: time.sleep(600))
    monkeypatch.setattr(lost, "GATHERING", 2.0)
    wait = ["--trainer.strategy=DDPStrategy", "--trainer.strategy.timeout=0:00:15"]
    code, lines = survivor(tmp_path, *wait, lost_rank=1)
    assert code == "1"
    line = "rank 1 did not come to where the others waited: step 3"
    assert lines == [f"instructgpt: error: {line}"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails_is_named_though_its_process_stays(tmp_path, monkeypatch, rank):
    """As where its end waits for operations that the others have not begun."""

    def fail():
        raise RuntimeError("out of memory\nand more")

    def staying(self, trainer, *rest):
        original(self, trainer, *rest)
        if trainer.global_rank == rank:
            time.sleep(600)

    original = lost.LostRanks.on_exception
    monkeypatch.setattr(lost.LostRanks, "on_exception", staying)
    monkeypatch.setattr(lost, "GATHERING", 2.0)
    at_step(monkeypatch, 2, fail, rank)
    code, lines = survivor(tmp_path, lost_rank=rank)
    assert code is None, "it has ended in the middle of an operation"
    line = f"rank {rank} failed in step 3: RuntimeError: out of memory"
    assert lines == [f"instructgpt: error: {line}"]


def test_an_error_of_ones_own_stays_what_it_is(tmp_path, monkeypatch):
    def fail():
        raise RuntimeError("a bug")

    for rank in (0, 1):
        at_step(monkeypatch, 2, fail, rank)
    with pytest.raises(AssertionError, match="RuntimeError: a bug"):
        run_processes(lambda: main(toy_args("--output", str(tmp_path), *RANKS)))
