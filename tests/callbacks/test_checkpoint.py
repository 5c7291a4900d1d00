"""Checkpoints: exact resume, Ctrl-C, and what --ckpt_path may and may not do."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from harness import run_processes
from toy_stage import ToyModule, fit, toy_args

from instructgpt.__main__ import main as run
from instructgpt.callbacks.checkpoint import StageCheckpoint
from instructgpt.callbacks.signals import Interrupted
from instructgpt.cli import main
from instructgpt.types import UserError

# 20 rows / 2 = 10 batches an epoch, two of them a step: 5 steps an epoch, 10 in all
LONG = ("--data.rows=20", "--trainer.accumulate_grad_batches=2")


def weights(folder):
    checkpoint = torch.load(Path(folder, "checkpoints", "last.ckpt"), weights_only=True)
    return checkpoint["global_step"], checkpoint["state_dict"]


def same(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


def raise_signal_in(monkeypatch, epoch, batch, times=1, number=signal.SIGINT, step="training_step"):
    original = getattr(ToyModule, step)

    def interrupted(self, rows, batch_idx):
        if (self.trainer.current_epoch, batch_idx) == (epoch, batch):
            for _ in range(times):
                os.kill(os.getpid(), number)
        return original(self, rows, batch_idx)

    monkeypatch.setattr(ToyModule, step, interrupted)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    fit(folder, *LONG)
    return folder


@pytest.mark.parametrize(
    ("epoch", "batch", "stopped"),
    [
        (0, 0, 1),  # first micro-batch of a step: the step is completed
        (0, 3, 2),  # last micro-batch of a step
        (0, 9, 5),  # last batch of an epoch: after its validation
        (1, 4, 8),
        (1, 9, 10),  # last batch of all
    ],
)
def test_ctrl_c_stops_at_a_step_and_the_run_goes_on_exactly(
    tmp_path, monkeypatch, capsys, uninterrupted, epoch, batch, stopped
):
    with monkeypatch.context() as patch:
        raise_signal_in(patch, epoch, batch)
        assert run(toy_args("--output", str(tmp_path), *LONG)) == 130
    assert weights(tmp_path)[0] == stopped
    assert not (tmp_path / "export").exists()
    said = capsys.readouterr().err.splitlines()[-2:]
    assert said[0] == f"stopped after step {stopped}; to go on:"
    command = said[1].split()
    assert command[:3] == ["python", "-m", "instructgpt"]
    assert run(command[3:]) == 0
    assert weights(tmp_path)[0] == 10
    assert same(weights(tmp_path)[1], weights(uninterrupted)[1])
    for name in ("metrics.json", "samples.jsonl"):
        text, whole = ((folder / name).read_text() for folder in (tmp_path, uninterrupted))
        if name == "metrics.json":
            text, whole = json.loads(text), json.loads(whole)
            del text["seconds"], whole["seconds"]
        assert text == whole


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_other_signals_than_ctrl_c_and_in_a_validation(
    tmp_path, monkeypatch, uninterrupted, number
):
    with monkeypatch.context() as patch:
        raise_signal_in(patch, 0, 1, number=number, step="validation_step")
        assert run(toy_args("--output", str(tmp_path), *LONG)) == 128 + number
    assert weights(tmp_path)[0] == 5
    assert run(["fit", "--config", f"{tmp_path}/config.yaml", "--ckpt_path=last"]) == 0
    assert same(weights(tmp_path)[1], weights(uninterrupted)[1])


def test_a_second_ctrl_c_stops_at_once(tmp_path, monkeypatch, caplog):
    raise_signal_in(monkeypatch, 0, 2, times=2)
    before = signal.getsignal(signal.SIGTERM)
    assert run(toy_args("--output", str(tmp_path), *LONG)) == 130
    assert "stopped at once: nothing was saved" in caplog.text
    assert not list(tmp_path.rglob("*.ckpt"))
    assert signal.getsignal(signal.SIGTERM) == before


def test_signals_are_given_back(tmp_path):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    fit(tmp_path)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_all_ranks_stop_when_one_is_asked(tmp_path):
    def child():
        with pytest.MonkeyPatch.context() as patch:
            if os.environ["RANK"] == "1":
                raise_signal_in(patch, 0, 1)
            with pytest.raises(Interrupted) as stop:
                fit(tmp_path, "--trainer.strategy=ddp", "--trainer.devices=2")
        return stop.value.exit_code, [str(a) for a in stop.value.args]

    (code, said), other = run_processes(child)
    assert code == 130
    assert "--ckpt_path last" in said[0]
    assert other == (0, [])  # only the first process speaks to the shell
    assert weights(tmp_path)[0] == 2


@pytest.fixture
def written(monkeypatch):
    """Steps and names of the checkpoints, as they are written."""
    written = []
    save = StageCheckpoint._save_checkpoint

    def note(self, trainer, filepath):
        written.append((trainer.global_step, Path(filepath).stem))
        save(self, trainer, filepath)

    monkeypatch.setattr(StageCheckpoint, "_save_checkpoint", note)
    return written


def test_last_is_written_every_n_steps_and_at_the_end(tmp_path, written):
    # 3 epochs of 5 steps; validations after 5, 10, 15
    fit(tmp_path, *LONG, "--trainer.max_epochs=3", "--checkpoint.every_n_steps=2")
    assert [step for step, name in written if name == "last"] == [2, 4, 5, 6, 8, 10, 12, 14, 15]
    written.clear()
    no_validation = ("--trainer.limit_val_batches=0", "--checkpoint.every_n_steps=0")
    fit(tmp_path, *LONG, *no_validation)
    assert written == [(10, "last")]


def test_last_is_never_written_while_gradients_are_being_accumulated(tmp_path, written):
    # validations after batches 3, 6 and 9 of 10; a step takes two: only 6 is between two steps
    fit(tmp_path, *LONG, "--trainer.val_check_interval=3")
    assert [step for step, name in written if name == "last"] == [3, 8, 10]


def test_best_follows_the_monitor(tmp_path, monkeypatch):
    losses = iter([3.0, 1.0, 2.0, float("nan")])
    monkeypatch.setattr(
        ToyModule, "on_validation_epoch_end", lambda self: self.log("val/loss", next(losses))
    )
    monkeypatch.setattr(ToyModule, "validation_step", lambda self, batch, batch_idx: None)
    cli = fit(tmp_path, "--trainer.max_epochs=4")
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == 12  # the second of four validations, 6 steps each
    exported = torch.load(tmp_path / "export" / "weights.pt", weights_only=True)
    assert torch.equal(exported["0.weight"], best["state_dict"]["layer.0.weight"])
    assert cli.model.finalized == 1
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["exported"]["step"], metrics["exported"]["val/loss"]) == (12, 1.0)
    assert metrics["final"]["step"] == 24
    assert [row["step"] for row in metrics["validations"]] == [6, 12, 18, 24]


def test_a_checkpoint_overrules_nothing(tmp_path):
    fit(tmp_path, "--model.optimizer.lr=0.05")
    cli = fit(tmp_path, "--ckpt_path=last", "--model.optimizer.lr=0.01", "--trainer.max_epochs=3")
    assert cli.config.fit.model.init_args.optimizer.init_args.lr == 0.01
    assert cli.trainer.global_step == 18
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["ckpt_path"] is None


class SecondToyModule(ToyModule):
    """Another stage."""


def test_a_checkpoint_of_another_class_is_refused(tmp_path):
    fit(tmp_path)
    with pytest.raises(UserError, match=r"must hold a SecondToyModule, got a ToyModule"):
        fit(tmp_path, "--ckpt_path=last", "--model=SecondToyModule")


@pytest.mark.parametrize("name", ["last", "best", "nowhere.ckpt"])
def test_a_missing_checkpoint_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"--ckpt_path must be an existing checkpoint, got .*ckpt"):
        fit(tmp_path, f"--ckpt_path={name}")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"--ckpt_path must be a checkpoint of a run, got .*x.ckpt"):
        fit(tmp_path, f"--ckpt_path={tmp_path}/x.ckpt")
    torch.save({"some": 1}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"--ckpt_path must be a checkpoint of a run, got .*x.ckpt"):
        fit(tmp_path, f"--ckpt_path={tmp_path}/x.ckpt")


def test_every_n_steps_is_checked():
    with pytest.raises(UserError, match=r"checkpoint.every_n_steps must be >= 0, got -1"):
        StageCheckpoint(every_n_steps=-1)


def test_a_new_run_in_the_folder_says_so(tmp_path, caplog):
    fit(tmp_path)
    assert "earlier run" not in caplog.text
    main(toy_args("--output", str(tmp_path)))
    assert f"{tmp_path} holds an earlier run, which this one overwrites" in caplog.text


@pytest.fixture
def losses(monkeypatch):
    """Validation losses to come."""
    losses = []
    monkeypatch.setattr(
        ToyModule, "on_validation_epoch_end", lambda self: self.log("val/loss", losses.pop(0))
    )
    monkeypatch.setattr(ToyModule, "validation_step", lambda self, batch, batch_idx: None)
    return losses


@pytest.mark.parametrize("copied", [False, True])
def test_a_moved_run_goes_on_with_its_own_best(tmp_path, losses, copied):
    losses += [1.0, 3.0, 2.0]
    a, b = tmp_path / "a", tmp_path / "b"
    fit(a)
    if copied:
        shutil.copytree(a, b)
        (a / "checkpoints" / "best.ckpt").write_bytes(b"not to be read")
    else:
        a.rename(b)
    cli = fit(b, "--ckpt_path=last", "--trainer.max_epochs=3")
    best = torch.load(b / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == 6  # 2.0 at step 18 is better than 3.0, not than 1.0 at step 6
    exported = torch.load(b / "export" / "weights.pt", weights_only=True)
    assert torch.equal(exported["0.weight"], best["state_dict"]["layer.0.weight"])
    ours = cli.trainer.checkpoint_callback
    assert (float(ours.kth_value), float(ours.best_model_score)) == (1.0, 1.0)
    assert list(ours.best_k_models) == [ours.best_model_path]
    assert ours.best_model_path == str((b / "checkpoints" / "best.ckpt").resolve())
    assert a.exists() == copied


def test_a_best_that_is_gone_is_not_waited_for(tmp_path, losses):
    losses += [1.0, 3.0, 2.0]
    fit(tmp_path)
    (tmp_path / "checkpoints" / "best.ckpt").unlink()
    with pytest.warns(UserWarning, match=r"best.ckpt is gone: the next validation counts as"):
        fit(tmp_path, "--ckpt_path=last", "--trainer.max_epochs=3")
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == 18


def test_nothing_of_an_earlier_run_is_taken_for_this_one(tmp_path, monkeypatch):
    fit(tmp_path)
    before = set(tmp_path.glob("events.out.tfevents.*"))
    assert before
    fit(tmp_path, "--trainer.fast_dev_run=true")
    with pytest.raises(UserError, match="got OtherToyData"):
        fit(tmp_path, "--data=OtherToyData")  # refused: it never begins
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert set(tmp_path.glob("events.out.tfevents.*")) == before

    def die(self, rows, batch_idx):
        raise RuntimeError("killed")

    monkeypatch.setattr(ToyModule, "training_step", die)
    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert not (tmp_path / "metrics.json").exists()
    assert (tmp_path / "export" / "weights.pt").is_file()  # until there is another
    events = set(tmp_path.glob("events.out.tfevents.*"))
    assert len(events) == 1
    assert not events & before


def test_a_resumed_run_keeps_what_is_there(tmp_path):
    fit(tmp_path)
    before = set(tmp_path.glob("events.out.tfevents.*"))
    fit(tmp_path, "--ckpt_path=last", "--trainer.max_epochs=3")
    assert before < set(tmp_path.glob("events.out.tfevents.*"))
