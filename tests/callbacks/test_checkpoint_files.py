"""What a run does about its checkpoint files: a full disk, kills while writing, damaged ones."""

import errno
import multiprocessing
import os
import signal
import tempfile

import pytest
import torch
from interrupted import interrupt_at, state
from last_line import last_line
from toy_stage import ToyModule, fit, toy_args

from instructgpt.__main__ import main as run
from instructgpt.models.checkpoint import Watched, damage

EVERY = ("--data.rows=20", "--checkpoint.every_n_steps=2", "--model.optimizer=Adam")  # 2 x 10 steps


def step_of(path):
    return torch.load(path, weights_only=True)["global_step"]


def names(folder):
    return {path.name for path in (folder / "checkpoints").iterdir()}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def write_fails(monkeypatch, call, fail):
    """Have ``fail`` called at a certain write for a checkpoint."""
    original, calls = Watched.write, []

    def write(self, data):
        calls.append(1)
        if len(calls) >= call:
            fail(self)
        return original(self, data)

    monkeypatch.setattr(Watched, "write", write)


def no_space(file):
    file.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise file.error


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    fit(folder, *EVERY)
    return state(folder)


def test_temporary_files_may_lie_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert run(toy_args("--output", str(tmp_path / "run"))) == 0
    assert names(tmp_path / "run") == {"last.ckpt", "best.ckpt"}


def test_a_full_disk_ends_the_run_in_one_line_and_the_state_before_stays(
    tmp_path, monkeypatch, capsys, whole
):
    calls = []
    with monkeypatch.context() as patch:
        write_fails(patch, 10**9, calls.append)
        fit(tmp_path / "count", *EVERY)
        patch.undo()
        write_fails(patch, 300, no_space)
        assert run(toy_args("--output", str(tmp_path), *EVERY)) == 2
    said = last_line(capsys)
    assert said.startswith("instructgpt: error: ")
    assert "last.ckpt cannot be written: No space left on device; the last.ckpt of before" in said
    assert not (tmp_path / "export").exists()
    assert damage(tmp_path / "checkpoints" / "last.ckpt") is None
    assert not [name for name in names(tmp_path) if name.startswith(".")]
    assert run(toy_args("--output", str(tmp_path), *EVERY, "--ckpt_path=last")) == 0
    assert state(tmp_path) == whole


@pytest.mark.parametrize("call", [300, 411])
def test_killed_while_it_writes_a_run_goes_on_from_the_state_before(tmp_path, call, whole):
    def child():
        with pytest.MonkeyPatch.context() as patch:
            write_fails(patch, call, lambda file: os.kill(os.getpid(), signal.SIGKILL))
            fit(tmp_path, *EVERY)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert any(name.endswith(".partial") for name in names(tmp_path))
    assert run(toy_args("--output", str(tmp_path), *EVERY, "--ckpt_path=last")) == 0
    assert names(tmp_path) == {"last.ckpt", "best.ckpt"}
    assert state(tmp_path) == whole


@pytest.mark.parametrize("harm", ["damaged", "cut", "gone"])
def test_a_damaged_last_falls_back_to_the_one_before(tmp_path, monkeypatch, harm, whole):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 12)
        assert run(toy_args("--output", str(tmp_path), *EVERY)) == 130
    last, previous = (tmp_path / "checkpoints" / name for name in ("last.ckpt", "previous.ckpt"))
    assert (step_of(last), step_of(previous)) == (13, 12)
    if harm == "damaged":
        flip(last)
    elif harm == "cut":
        last.write_bytes(last.read_bytes()[:-40])
    else:
        last.unlink()
    with monkeypatch.context() as patch:
        interrupt_at(patch, 12)
        with pytest.warns(UserWarning, match=r"last.ckpt is .*: going on from .*previous.ckpt"):
            assert run(toy_args("--output", str(tmp_path), *EVERY, "--ckpt_path=last")) == 130
    assert (step_of(last), step_of(previous)) == (13, 12)  # the damaged one is not kept
    assert run(toy_args("--output", str(tmp_path), *EVERY, "--ckpt_path=last")) == 0
    assert names(tmp_path) == {"last.ckpt", "best.ckpt"}
    assert state(tmp_path) == whole


def test_damaged_checkpoints_are_refused_in_one_line(tmp_path, capsys):
    fit(tmp_path)
    for name in ("last", "best"):
        flip(tmp_path / "checkpoints" / f"{name}.ckpt")
        capsys.readouterr()
        assert run(toy_args("--output", str(tmp_path), f"--ckpt_path={name}")) == 2
        said = last_line(capsys)
        assert said.startswith("instructgpt: error: --ckpt_path must be a checkpoint of a run, got")
        assert f"{name}.ckpt, which is damaged (" in said
    assert run(["export", "--run", str(tmp_path), "--output", str(tmp_path / "x")]) == 2
    assert "best.ckpt, which is damaged (" in last_line(capsys)
    assert not (tmp_path / "x").exists()


def test_a_best_that_is_damaged_at_the_end_stops_the_export(tmp_path, monkeypatch, capsys):
    losses = iter([1.0, 2.0])
    monkeypatch.setattr(
        ToyModule, "on_validation_epoch_end", lambda self: self.log("val/loss", next(losses))
    )
    monkeypatch.setattr(ToyModule, "validation_step", lambda self, batch, batch_idx: None)
    monkeypatch.setattr(
        ToyModule, "on_train_end", lambda self: flip(tmp_path / "checkpoints" / "best.ckpt")
    )
    assert run(toy_args("--output", str(tmp_path))) == 2
    assert "best.ckpt, which is damaged (" in last_line(capsys)
    assert not (tmp_path / "export").exists()
