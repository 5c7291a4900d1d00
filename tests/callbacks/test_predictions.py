"""``predict`` writes rows as they come and goes on where it stopped."""

import os

import pytest
from harness import run_processes
from last_line import last_line
from toy_stage import ToyData, ToyModule, fit, toy_args

from instructgpt.__main__ import main as run
from instructgpt.cli import main

WORK = ["predict", *toy_args()[1:-2], "--data.batch_size=1", "--model.seed=0"]


@pytest.fixture
def work(tmp_path):
    """Five batches of a row."""
    return [*WORK, f"--output={tmp_path}/run"]


@pytest.fixture
def whole(tmp_path):
    """What an uninterrupted run writes."""
    assert run([*WORK, f"--output={tmp_path}/whole"]) == 0
    text = (tmp_path / "whole/predictions.jsonl").read_text()
    assert len(text.splitlines()) == 5
    return text


def stopping(monkeypatch, after, how):
    """Stop at a batch; the batches that are predicted."""
    seen, real = [], ToyModule.predict_step

    def step(self, batch, batch_idx):
        if len(seen) == after:
            how()
        seen.append(batch[:, 0].tolist())
        return real(self, batch, batch_idx)

    monkeypatch.setattr(ToyModule, "predict_step", step)
    return seen


def fail():
    raise RuntimeError("out of luck")


def interrupted(work, monkeypatch, after):
    with monkeypatch.context() as patch:
        stopping(patch, after, fail)
        with pytest.raises(RuntimeError, match="out of luck"):
            main(work)


def test_the_same_command_goes_on(work, whole, tmp_path, monkeypatch, capsys):
    partial = tmp_path / "run/predictions.jsonl.partial"
    interrupted(work, monkeypatch, 2)
    assert partial.read_text() == "".join(whole.splitlines(keepends=True)[:2])
    assert f"2 rows are in {partial}: the same command goes on" in capsys.readouterr().err
    partial.write_text(partial.read_text() + '{"val')  # killed in the middle of a line
    seen = stopping(monkeypatch, -1, fail)
    main(work)
    assert len(seen) == 3
    assert (tmp_path / "run/predictions.jsonl").read_text() == whole
    assert not list((tmp_path / "run").glob("*.partial*"))


def test_a_limit_counts_what_is_there(work, whole, tmp_path, monkeypatch):
    work = [*work, "--trainer.limit_predict_batches=4"]
    interrupted(work, monkeypatch, 3)
    main(work)
    found = (tmp_path / "run/predictions.jsonl").read_text()
    assert found == "".join(whole.splitlines(keepends=True)[:4])


@pytest.mark.parametrize(("first", "second", "left"), [(1, 2, 2), (2, 1, 1), (2, 2, 1)])
def test_killed_ranks_are_gone_on_with_by_any_number(
    work, whole, tmp_path, monkeypatch, first, second, left
):
    """A batch of two ranks has two rows: three batches, the last half blank.

    Killed after two batches, one rank leaves 2 rows and two ranks leave 4. Of them, 1 and 2 batches
    of two ranks need not be computed again, or 4 of one rank: ``left`` are.
    """

    def call(ranks, after):
        more = ["--trainer.strategy=ddp", "--trainer.devices=2"] if ranks == 2 else []
        seen = stopping(monkeypatch, after, lambda: os._exit(9))
        main([*work, *more])
        return len(seen)

    with pytest.raises(AssertionError, match="no answer from ranks"):
        run_processes(call, first, 2, processes=first)
    lines = (tmp_path / "run/predictions.jsonl.partial").read_text().splitlines()
    assert len(lines) == 2 * first
    assert run_processes(call, second, -1, processes=second) == [left] * second
    assert (tmp_path / "run/predictions.jsonl").read_text() == whole


def test_ranks_end_together_when_going_on_is_refused(work, tmp_path, monkeypatch):
    interrupted(work, monkeypatch, 2)
    ranks = ["--trainer.strategy=ddp", "--trainer.devices=2", "--model.wrong=2"]
    assert run_processes(lambda: run([*work, *ranks])) == [2, 2]


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--model.wrong=2", "--model.wrong (1.0), got 2.0"),
        ("--trainer.precision=bf16-true", "--trainer.precision (32-true), got bf16-true"),
        ("--ckpt_path={ckpt}", "network (hash) ("),
        ("--data.rows=4", "--data.rows (12), got 4"),
        ("--trainer.limit_predict_batches=4", "set of rows (hash) ("),
    ],
)
def test_other_work_does_not_go_on(work, tmp_path, monkeypatch, capsys, option, name):
    interrupted(work, monkeypatch, 2)
    partial = tmp_path / "run/predictions.jsonl.partial"
    before = partial.read_text()
    if "ckpt" in option:
        fit(tmp_path / "fit")
    ckpt = tmp_path / "fit/checkpoints/last.ckpt"
    capsys.readouterr()
    assert run([*work, *option.format(ckpt=ckpt).split()]) == 2
    error = last_line(capsys)
    assert error.startswith(f"instructgpt: error: {partial} was begun with another {name}")
    assert error.endswith(f"or delete {partial} to start over")
    assert partial.read_text() == before


def test_rows_with_other_content_do_not_go_on(work, tmp_path, monkeypatch, capsys):
    interrupted(work, monkeypatch, 2)
    setup = ToyData.setup

    def other(self, stage):
        setup(self, stage)
        self.validation_rows[4].values[0] += 1

    monkeypatch.setattr(ToyData, "setup", other)
    assert run(work) == 2
    assert "was begun with another set of rows (hash)" in capsys.readouterr().err
