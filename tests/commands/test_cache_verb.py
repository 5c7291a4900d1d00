"""``cache``: what is kept for later runs is listed, and removed on request."""

import fcntl
import multiprocessing
import os

import pytest
import torch

from instructgpt.__main__ import main as run
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.evaluation.kept_scores import KeptScores, key_of
from instructgpt.modules.cached import FEATURES, LOGPROBS, kept_path, read_kept, write_kept

OF = {"reference": "runs/sft/export", "data.train": "c.jsonl"}
FIRST, SECOND, THIRD = ("0" * 32, "1" * 32, "f" * 32)


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
    write_kept(LOGPROBS, kept_path(LOGPROBS, {"of": "one"}), {"train": torch.zeros(7)}, OF)
    write_kept(FEATURES, kept_path(FEATURES, {"of": "one"}), {"train": torch.zeros(7, 2)}, OF)
    scores = KeptScores({"model": "abc"}, "reward model runs/reward/export")
    scores.add({key_of([1], [2]): [0.5]})
    code, out = said(capsys)
    assert code == 0
    assert f"rows of data in {home / 'data'}: 1 entry" in out
    assert f"demonstrations of {file}\n" in out
    assert f"reference log-probabilities in {home / 'reference_logprobs'}: 1 entry" in out
    assert f"features of frozen trunks in {home / 'features'}: 1 entry" in out
    assert f"scores of reward models in {home / 'scores'}: 1 entry" in out
    assert "reward model runs/reward/export\n" in out
    assert "reference runs/sft/export; data.train c.jsonl\n" in out
    (home / "data" / "notes.txt").write_text("mine")
    code, out = said(capsys, "--clear", "true")
    assert code == 0
    assert "removed: 4 entries" in out
    assert [path.name for path in (home / "data").iterdir()] == ["notes.txt"]
    assert list((home / "reference_logprobs").iterdir()) == []
    assert list((home / "features").iterdir()) == []
    assert scores.read() == {}
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
    building, left = (home / "data" / f"{name}.partial" for name in (FIRST, THIRD))
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


def test_what_is_of_others_stays(home, tmp_path, tokenizer_folder, capsys):
    prepare(tmp_path, tokenizer_folder)
    (entry,) = (home / "data").iterdir()
    linked = tmp_path / "linked"
    theirs = [
        linked / "rows.arrow",  # a link leads there
        entry / "notes.txt",
        home / "data" / "digests" / "notes.json",
        home / "data" / "download.partial" / "film",
        home / "data" / "tokenizer" / "made_from.json",
        home / "data" / f"{SECOND}.txt",
        home / "reference_logprobs" / "model.safetensors",
    ]
    own = [home / "data" / "digests" / f"{SECOND}.json"]
    for file in (*theirs, *own):
        file.parent.mkdir(exist_ok=True)
        file.write_text("{}")
    (home / "data" / THIRD).symlink_to(linked)
    assert said(capsys, "--clear=true")[0] == 0
    assert all(file.read_text() == "{}" for file in theirs)
    assert {file for file in home.rglob("*") if file.is_file()} - set(theirs) <= {
        home / "data" / THIRD / "rows.arrow"
    }


def test_damaged_entries_are_named_and_removed(home, tmp_path, tokenizer_folder, capsys):
    for number, text in enumerate(["{", "3", '{"facts": 3}', '{"facts": {}}']):
        prepare(tmp_path, tokenizer_folder, f"rows {number}")
        new = max((home / "data").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        (new / "made_from.json").write_text(text)
    (home / "data" / FIRST).mkdir()
    write_kept(LOGPROBS, kept_path(LOGPROBS, {"of": "one"}), {"train": torch.zeros(7)}, OF)
    (file,) = (home / "reference_logprobs").iterdir()
    file.write_bytes(b"x")
    code, out = said(capsys)
    assert code == 0
    assert out.count("  damaged") == 6
    assert "removed: 6 entries" in said(capsys, "--clear=true")[1]
    assert list((home / "data").iterdir()) == []


def test_an_entry_that_another_run_holds_is_not_waited_for(
    home, tmp_path, tokenizer_folder, capsys
):
    prepare(tmp_path, tokenizer_folder)
    (entry,) = (home / "data").iterdir()
    forking = multiprocessing.get_context("fork")
    held, done = forking.Event(), forking.Event()
    other = forking.Process(target=_hold, args=(entry.with_suffix(".lock"), held, done))
    other.start()
    held.wait(60)
    code, out = said(capsys, "--clear=true")
    done.set()
    other.join()
    assert code == 0
    assert f"being built by process {other.pid}, stays: {entry}" in out
    assert (entry / "rows.arrow").exists()


def test_when_log_probabilities_were_used_is_known(home, capsys):
    path, kept = kept_path(LOGPROBS, {"of": "one"}), {"train": torch.zeros(7)}
    write_kept(LOGPROBS, path, kept, OF)
    os.utime(path, (86400 * 2, 86400 * 2))
    assert "last used 1970-01-0" in said(capsys)[1]
    assert read_kept(LOGPROBS, path, kept)
    assert "last used 1970-01-0" not in said(capsys)[1]
