"""``last.ckpt`` by the clock: when it is written, alike on all ranks, and what goes on from it."""

import os
from types import SimpleNamespace

import pytest
import torch
from harness import run_processes
from interrupted import state, stopped
from toy_stage import ToyModule, fit, toy_args

import instructgpt.callbacks.checkpoint as module
from instructgpt.__main__ import main as run
from instructgpt.callbacks.checkpoint import StageCheckpoint
from instructgpt.types import UserError

# 20 rows / 2 = 10 batches an epoch, two of them a step: 5 steps an epoch, validated there
LONG = ("--data.rows=20", "--trainer.accumulate_grad_batches=2", "--model.optimizer=Adam")
CLOCK = ("--checkpoint.every_n_steps=0", "--checkpoint.every_minutes=2.5")


def clock_of(patch, minutes):
    """Have each batch take so many minutes; the steps at which ``last.ckpt`` is then written."""
    now, written = [1e6], []
    patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    train, save = ToyModule.training_step, StageCheckpoint._save_checkpoint

    def training_step(self, rows, batch_idx):
        now[0] += 60 * minutes
        return train(self, rows, batch_idx)

    def note(self, trainer, filepath):
        if filepath.endswith("last.ckpt"):
            written.append(trainer.global_step)
        save(self, trainer, filepath)

    patch.setattr(ToyModule, "training_step", training_step)
    patch.setattr(StageCheckpoint, "_save_checkpoint", note)
    return written


@pytest.mark.parametrize(
    ("minutes", "options", "expected"),
    [
        # A step takes 2 minutes. Step 2 ends at 4 >= 2.5, step 4 at 8 >= 4 + 2.5; 5 is validated.
        (1, CLOCK, [2, 4, 5, 7, 9, 10]),
        # 3 by count, at 6; step 4, at 8, is 2 minutes later. 5 validated, at 10; 6 by count, at 12;
        # 8 at 16 >= 12 + 2.5; 9 by count; 10 validated.
        (1, ("--checkpoint.every_n_steps=3", CLOCK[1]), [2, 3, 5, 6, 8, 9, 10]),
        # Batches of 2 minutes: after the first of a step 2.5 are not over, after the second 4 are.
        (2, CLOCK, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (0.01, CLOCK, [5, 10]),
        (100, ("--checkpoint.every_n_steps=0",), [5, 10]),
    ],
)
def test_it_is_written_after_the_first_step_that_ends_so_much_later(
    tmp_path, monkeypatch, minutes, options, expected
):
    written = clock_of(monkeypatch, minutes)
    fit(tmp_path, *LONG, *options)
    assert written == expected


def test_a_resumed_run_waits_anew_and_ends_the_same(tmp_path, monkeypatch):
    whole, again = tmp_path / "whole", tmp_path / "again"
    fit(whole, *LONG)
    args = toy_args("--output", str(again), *LONG, *CLOCK)
    with monkeypatch.context() as patch:
        clock_of(patch, 1)
        assert stopped(args, "kill", 3) == -9  # of 2 and 4 there is 2
    assert step(again) == 2
    with monkeypatch.context() as patch:
        written = clock_of(patch, 1)
        assert stopped([*args, "--ckpt_path=last"], "kill", 8) == -9  # 2 + 2 and 5 + 2
        assert step(again) == 7
        assert run([*args, "--ckpt_path=last"]) == 0
    assert written == [9, 10]
    assert state(again) == state(whole)


def step(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


@pytest.mark.parametrize(("first", "expected"), [(1, [2, 4, 5, 7, 9, 10]), (0.01, [5, 10])])
def test_the_clock_of_the_first_rank_decides(tmp_path, first, expected):
    def child():
        with pytest.MonkeyPatch.context() as patch:
            written = clock_of(patch, first if os.environ["RANK"] == "0" else 7)
            ranked = ("--trainer.strategy=ddp", "--trainer.devices=2", "--data.batch_size=1")
            fit(tmp_path, *LONG, *CLOCK, *ranked)
            return written

    assert run_processes(child) == [expected, expected]


@pytest.mark.parametrize("minutes", [0, -1.5])
def test_the_interval_is_checked(minutes):
    with pytest.raises(UserError, match=r"checkpoint.every_minutes must be > 0 or null, got "):
        StageCheckpoint(every_minutes=minutes)
