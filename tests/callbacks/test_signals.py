"""Signals where a run saves nothing: before its first step, in its export, in other verbs."""

import os
import signal

import pytest
from harness import run_processes
from interrupted import ended, resumed, state, stopped
from toy_stage import ToyData, ToyModule, toy_args

from instructgpt.__main__ import main as run
from instructgpt.callbacks.samples import SampleWriter

ANEW = "stopped with nothing saved: the same command begins anew"
AFTER = ["--data.rows=8", "--checkpoint.every_n_steps=1"]


def send(*numbers):
    """To this process, one after the other, even if the one before raises."""
    try:
        os.kill(os.getpid(), numbers[0])
    finally:
        if numbers[1:]:
            send(*numbers[1:])


def signalled(args, kind, name, *numbers):
    """Run in a child that is sent signals when it comes to a method; how it ended."""
    original = getattr(kind, name)

    def method(self, *rest, **named):
        send(*numbers)
        return original(self, *rest, **named)

    return ended(args, kind, name, method)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ToyData, "setup"),  # rows are read
        (ToyModule, "on_fit_start"),  # the model is there
        (SampleWriter, "on_train_start"),  # all but the first step
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_before_the_first_step(tmp_path, capfd, kind, name, number):
    """Left to Lightning, SIGTERM ends such a run with exit code 0, or unseen."""
    args = toy_args("--output", str(tmp_path / "run"), *AFTER)
    assert signalled(args, kind, name, number) == 128 + number
    said = capfd.readouterr().err.splitlines()
    assert said[-1] == ANEW
    assert "Traceback" not in "".join(said)
    assert not (tmp_path / "run" / "export").exists()


def test_again_and_again_before_the_first_step_and_in_the_export(tmp_path, capfd):
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert run(toy_args("--output", str(whole), *AFTER)) == 0

    def stop(kind, name, *numbers):
        args = toy_args("--output", str(again), *AFTER, *resumed(again))
        code = signalled(args, kind, name, *numbers)
        return code, capfd.readouterr().err

    assert stop(SampleWriter, "on_train_start", signal.SIGINT, signal.SIGINT)[0] == -2
    assert stopped(toy_args("--output", str(again), *AFTER), "kill", 3) == -9
    last = again / "checkpoints" / "last.ckpt"
    for kind, name in ((ToyModule, "on_fit_start"), (SampleWriter, "on_train_start")):
        code, said = stop(kind, name, signal.SIGUSR1)
        assert code == 138
        line = f"stopped with nothing new saved: the same command goes on from {last}"
        assert said.splitlines()[-1] == line
    code, said = stop(ToyModule, "export", signal.SIGTERM)
    assert code == 143
    command = f"python -m instructgpt fit --config {again}/config.yaml --ckpt_path last"
    assert said.splitlines()[-2:] == ["stopped after step 8; to go on:", f"  {command}"]
    assert run(toy_args("--output", str(again), *AFTER, "--ckpt_path=last")) == 0
    assert state(again) == state(whole)


@pytest.mark.parametrize(
    ("verb", "name"), [("validate", "validation_step"), ("predict", "predict_step")]
)
def test_other_verbs_stop_too(tmp_path, capfd, verb, name):
    args = [verb, *toy_args("--output", str(tmp_path))[1:]]
    assert signalled(args, ToyModule, name, signal.SIGTERM) == 143
    line = f"{verb} was stopped: the same command does it"
    assert capfd.readouterr().err.splitlines()[-1] == line
    assert not (tmp_path / "predictions.jsonl").exists()


def test_a_forked_process_of_a_run_ends_as_any_other(tmp_path, monkeypatch):
    """As those that read rows: they have no run to end."""

    def setup(self, stage):
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        original(self, stage)

    original = ToyData.setup
    monkeypatch.setattr(ToyData, "setup", setup)
    assert run(toy_args("--output", str(tmp_path))) == 0


def test_all_processes_end(tmp_path, monkeypatch):
    """The first tells the shell; the second must not have its launcher kill the first."""

    def setup(self, stage):
        original(self, stage)
        os.kill(os.getpid(), signal.SIGTERM)

    original = ToyData.setup
    monkeypatch.setattr(ToyData, "setup", setup)
    ranks = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    codes = run_processes(lambda: run(toy_args("--output", str(tmp_path), *ranks)))
    assert codes == [143, 0]
