"""A run that was interrupted, however often and at whatever moment, is the one that never was."""

import pytest
import torch
from interrupted import interrupt_at, state
from toy_stage import toy_args

from instructgpt.__main__ import main as run

ADAM = ("--model.optimizer=Adam", "--model.optimizer.lr=0.05")


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        # 4 steps an epoch. 1: its last step, without validation; 2: in the middle of the next
        ("--data.rows=8 --trainer.max_epochs=3 --trainer.check_val_every_n_epoch=2", (3, 5)),
        # 10 batches an epoch, two a step, validated after batches 3, 6 and 9
        (
            "--data.rows=20 --trainer.accumulate_grad_batches=2 --trainer.val_check_interval=3",
            (0, 4, 7),
        ),
        # never validated
        (
            "--data.rows=8 --trainer.max_epochs=-1 --trainer.max_steps=10 "
            "--trainer.limit_val_batches=0",
            (3, 7),
        ),
        # Stopped after the second epoch, which is what the third call finds.
        (
            "--data.rows=8 --trainer.max_epochs=6 --trainer.callbacks=EarlyStopping "
            "--trainer.callbacks.monitor=val/loss --trainer.callbacks.patience=1 "
            "--trainer.callbacks.min_delta=9",
            (3, 7),
        ),
    ],
)
def test_more_than_one_interruption_changes_nothing(tmp_path, monkeypatch, options, steps):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    args = [*ADAM, *options.split()]
    assert run(toy_args("--output", str(whole), *args)) == 0
    resume = []
    for step in steps:
        with monkeypatch.context() as patch:
            interrupt_at(patch, step)
            assert run(toy_args("--output", str(stopped), *args, *resume)) == 130
        resume = ["--ckpt_path=last"]
    assert run(toy_args("--output", str(stopped), *args, *resume)) == 0
    assert state(stopped) == state(whole)


@pytest.mark.parametrize(
    "options",
    [
        "--data.rows=10 --trainer.check_val_every_n_epoch=2",
        "--data.rows=10 --trainer.limit_val_batches=0 --checkpoint.every_n_steps=3",
        "--data.rows=20 --trainer.accumulate_grad_batches=2 --trainer.val_check_interval=3",
    ],
)
def test_a_longer_run_goes_on_where_max_steps_ended_the_shorter(tmp_path, options):
    """4 epochs of 5 steps: 13 of them first, then all 20."""
    args = [*ADAM, *options.split(), "--trainer.max_epochs=4"]
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    assert run(toy_args("--output", str(whole), *args)) == 0
    assert run(toy_args("--output", str(longer), *args, "--trainer.max_steps=13")) == 0
    assert run(toy_args("--output", str(longer), *args, "--ckpt_path=last")) == 0
    assert state(longer) == state(whole)


def test_a_step_that_was_not_complete_is_made_again(tmp_path):
    """best.ckpt of a validation in the middle of a step: its gradients are in no checkpoint."""
    args = [
        *ADAM,
        "--data.rows=20",
        "--trainer.accumulate_grad_batches=3",
        "--trainer.max_epochs=1",
    ]
    args += ["--trainer.val_check_interval=4", "--trainer.limit_val_batches=1"]
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert run(toy_args("--output", str(whole), *args)) == 0
    best = whole / "checkpoints" / "best.ckpt"
    assert torch.load(best, weights_only=True)["global_step"] == 2  # after batch 8, 2 into a step
    assert run(toy_args("--output", str(again), *args, f"--ckpt_path={best}")) == 0
    assert state(again)["weights"] == state(whole)["weights"]
