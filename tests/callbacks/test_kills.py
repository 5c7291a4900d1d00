"""Signals of all kinds, one after the other, at any step: the run is the one that never was."""

import pytest
from interrupted import resumed, state, stopped
from toy_stage import toy_args

from instructgpt.__main__ import main as run

CASES = [
    # 10 batches an epoch, two a step, validated after batches 3, 6 and 9; saved every second step
    (
        "--data.rows=20 --trainer.accumulate_grad_batches=2 --trainer.val_check_interval=3 "
        "--checkpoint.every_n_steps=2",
        [("kill", 3), ("terminate", 4), ("kill", 7)],
    ),
    # 4 steps an epoch: around the ends of two of them
    (
        "--data.rows=8 --trainer.max_epochs=3 --trainer.check_val_every_n_epoch=2 "
        "--checkpoint.every_n_steps=1",
        [("kill", 3), ("kill", 4), ("interrupt twice", 5), ("kill", 7)],
    ),
    # no epochs, no validation, saved every third step
    (
        "--data.rows=8 --trainer.max_epochs=-1 --trainer.max_steps=10 "
        "--trainer.limit_val_batches=0 --checkpoint.every_n_steps=3",
        [("kill", 2), ("interrupt", 3), ("kill", 8), ("kill", 9)],
    ),
    # saved by the clock alone, after every step
    (
        "--data.rows=20 --trainer.accumulate_grad_batches=2 --trainer.val_check_interval=3 "
        "--checkpoint.every_n_steps=0 --checkpoint.every_minutes=1e-9",
        [("kill", 1), ("kill", 4), ("interrupt", 5), ("kill", 7)],
    ),
]


@pytest.mark.parametrize(("options", "stops"), CASES)
def test_any_signals_change_nothing(tmp_path, options, stops):
    args = ["--model.optimizer=Adam", "--model.optimizer.lr=0.05", *options.split()]
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert run(toy_args("--output", str(whole), *args)) == 0
    for kind, step in stops:
        code = stopped(toy_args("--output", str(again), *args, *resumed(again)), kind, step)
        assert code == {"kill": -9, "terminate": 143}.get(kind, 130), kind
    assert run(toy_args("--output", str(again), *args, *resumed(again))) == 0
    assert state(again) == state(whole)


def test_a_kill_in_a_validation(tmp_path):
    args = ["--data.rows=20", "--trainer.val_check_interval=4", "--checkpoint.every_n_steps=3"]
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert run(toy_args("--output", str(whole), *args)) == 0
    for step in (4, 14):
        start = toy_args("--output", str(again), *args, *resumed(again))
        assert stopped(start, "kill", step, "validation_step") == -9
    assert run(toy_args("--output", str(again), *args, "--ckpt_path=last")) == 0
    assert state(again) == state(whole)
