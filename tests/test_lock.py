"""Only one fit writes to a folder; a place without a name is none."""

import multiprocessing
import os
import signal
import time

import pytest
from last_line import last_line
from toy_stage import ToyModule, fit, toy_args

from instructgpt.__main__ import main as run
from instructgpt.models.lock import LOCK_FILE, locked
from instructgpt.types import UserError


@pytest.fixture
def running(tmp_path):
    """A fit that is in its fourth step, in another process."""

    def child():
        def wait(self, rows, batch_idx):
            if self.trainer.global_step == 3:
                (tmp_path / "waiting").touch()
                time.sleep(600)  # until it is killed
            return original(self, rows, batch_idx)

        original, ToyModule.training_step = ToyModule.training_step, wait
        fit(tmp_path / "run", "--checkpoint.every_n_steps=1")

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    yield process
    process.kill()
    process.join()


def files(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime for path in folder.rglob("*")}


def test_a_second_fit_is_refused_until_the_first_is_gone(tmp_path, running, capsys):
    folder = tmp_path / "run"
    before = files(folder)
    for more in ((), ("--ckpt_path=last",), ("--trainer.max_epochs=1",)):
        capsys.readouterr()
        assert run(toy_args("--output", str(folder), *more)) == 2
        said = last_line(capsys)
        owner = f"process {running.pid} on "
        assert f"error: --output {folder} is in use by another fit ({owner}" in said
    assert files(folder) == before
    os.kill(running.pid, signal.SIGKILL)
    running.join()
    assert (folder / LOCK_FILE).exists()  # a stale one
    assert run(toy_args("--output", str(folder), "--ckpt_path=last")) == 0
    assert not (folder / LOCK_FILE).exists()


def test_the_lock_goes_with_the_run_however_it_ends(tmp_path, monkeypatch):
    fit(tmp_path)
    with pytest.raises(UserError, match="got OtherToyData"):
        fit(tmp_path / "new", "--data=OtherToyData")
    assert not (tmp_path / "new").exists()

    def die(self, rows, batch_idx):
        raise RuntimeError("killed")

    monkeypatch.setattr(ToyModule, "training_step", die)
    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path)
    assert not (tmp_path / LOCK_FILE).exists()
    with locked(tmp_path, "fit"):
        assert (tmp_path / LOCK_FILE).read_text().startswith(f"process {os.getpid()} on ")


@pytest.mark.parametrize("place", ["--output=", "--output= ", "--trainer.default_root_dir="])
def test_a_place_without_a_name_is_refused(tmp_path, monkeypatch, capsys, place):
    monkeypatch.chdir(tmp_path)
    assert run(toy_args(place)) == 2
    assert f"error: {place.partition('=')[0]} must name a folder, got '" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "kind"),
    [
        ("generate", "file"),
        ("evaluate", "folder"),
        ("label", "folder"),
        ("export", "folder"),
        ("world", "folder"),
        ("pipeline", "folder"),
        ("predict", "folder"),
    ],
)
def test_every_verb_refuses_it(verb, kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run([verb, "--output", ""]) == 2
    assert f"error: --output must name a {kind}, got ''" in capsys.readouterr().err


def test_an_empty_place_in_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text('output: ""\n')
    assert run(toy_args("--config", str(tmp_path / "run.yaml"))) == 2
    assert "error: --output must name a folder, got ''" in capsys.readouterr().err
