"""``cache``: what is kept for later runs is listed, and removed on request."""

import fcntl
import multiprocessing
import os

import pytest
import torch

from instructgpt.__main__ import main as run
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.modules.kept import Kept, kept_path, write_kept


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "instructgpt"


def prepare(tmp_path, tokenizer_folder, name="rows", cache=None):
    file = tmp_path / f"{name}.jsonl"
    file.write_text("".join(f'{{"prompt": "{name} {i}", "response": "a"}}\n' for i in range(9)))
    data = DemonstrationDataModule(
        train=str(file), validation=None, tokenizer=tokenizer_folder, cache=cache
    )
    data.setup("fit")
    return file, data


def said(capsys, *options):
    capsys.readouterr()
    code = run(["cache", *options])
    out, err = capsys.readouterr()
    return code, out or err


def test_what_is_kept_is_listed_and_removed(home, tmp_path, tokenizer_folder, capsys):
    file, data = prepare(tmp_path, tokenizer_folder)
    write_kept(kept_path({"of": "one"}), {"train": Kept(torch.zeros(7), [0, 7])})
    code, out = said(capsys)
    assert code == 0
    assert f"rows of data in {home / 'data'}: 1 entry" in out
    assert f"demonstrations of {file}\n" in out
    assert f"reference log-probabilities in {home / 'reference_logprobs'}: 1 entry" in out
    (home / "data" / "notes.txt").write_text("mine")
    code, out = said(capsys, "--clear", "true")
    assert code == 0
    assert "removed: 2 entries" in out
    assert [path.name for path in (home / "data").iterdir()] == ["notes.txt"]
    assert list((home / "reference_logprobs").iterdir()) == []
    assert len(data.train_rows[8].tokens) > 0  # a run that has it open reads on
    assert "0 entries, 0 B" in said(capsys)[1]


def test_a_folder_of_ones_own(home, tmp_path, tokenizer_folder, capsys):
    own = tmp_path / "own"
    prepare(tmp_path, tokenizer_folder, "here")
    file, _ = prepare(tmp_path, tokenizer_folder, "there", str(own))
    code, out = said(capsys, f"--folder={own}", "--clear=true")
    assert code == 0
    assert str(file) in out
    assert "log-probabilities" not in out
    assert list(own.iterdir()) == []
    assert len(list((home / "data").iterdir())) == 1
    code, err = said(capsys, f"--folder={tmp_path / 'nowhere'}")
    assert code == 2
    assert err.count("\n") == 1
    assert "--folder must be a folder" in err


def _hold(path, held, done):
    with path.open("a+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        file.write(f"process {os.getpid()}")
        file.flush()
        held.set()
        done.wait(60)


def test_what_is_being_built_stays_and_what_a_kill_left_goes(home, tmp_path, capsys):
    building, left = home / "data" / "aa.partial", home / "data" / "bb.partial"
    for folder in (building, left):
        folder.mkdir(parents=True)
        (folder / "rows.arrow").write_bytes(bytes(2000))
        folder.with_suffix(".lock").touch()
    forking = multiprocessing.get_context("fork")
    held, done = forking.Event(), forking.Event()
    arguments = (building.with_suffix(".lock"), held, done)
    builder = forking.Process(target=_hold, args=arguments)
    builder.start()
    held.wait(60)
    code, out = said(capsys, "--clear=true")
    done.set()
    builder.join()
    assert code == 0
    assert f"being built by process {builder.pid}, stays: {building}" in out
    assert "2.0 kB" in out
    assert "left by a run that was killed" in out
    assert building.is_dir()
    assert not left.exists()
