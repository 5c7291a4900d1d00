"""Checkpoint files: whole or not there, and what is damaged is found."""

import random
import resource

import pytest
import torch

from instructgpt.models.checkpoint import Watched, damage, load_checkpoint, newest, save_checkpoint
from instructgpt.types import UserError

CONTENT = {"global_step": 3, "instructgpt": {"class_path": "a.B"}, "x": torch.arange(5000.0)}


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_what_is_saved_is_loaded_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    for step in (3, 4, 5):
        save_checkpoint({**CONTENT, "global_step": step}, path)
    assert load_checkpoint(path)["global_step"] == 5
    assert torch.equal(load_checkpoint(path)["x"], CONTENT["x"])
    assert load_checkpoint(path.with_name("previous.ckpt"))["global_step"] == 4
    assert {one.name for one in path.parent.iterdir()} == {"last.ckpt", "previous.ckpt"}
    save_checkpoint(CONTENT, tmp_path / "best.ckpt")
    save_checkpoint(CONTENT, tmp_path / "best.ckpt")
    assert not (tmp_path / "previous.ckpt").exists()  # of last.ckpt only


def test_every_damage_is_found(tmp_path):
    path, rng = tmp_path / "last.ckpt", random.Random(0)
    save_checkpoint(CONTENT, path)
    size = path.stat().st_size
    found = 0
    for place in (0, size // 2, size - 1, *(rng.randrange(size) for _ in range(60))):
        flip(path, place)
        if damage(path) is None:  # between the records, where nothing is read
            assert torch.equal(load_checkpoint(path)["x"], CONTENT["x"])
        else:
            found += 1
            with pytest.raises(UserError, match="must be a checkpoint of a run, got"):
                load_checkpoint(path)
        flip(path, place)
    assert found > 50
    for length in (0, 1, size // 2, size - 1):
        cut = tmp_path / "cut.ckpt"
        cut.write_bytes(path.read_bytes()[:length])
        assert "is damaged" in damage(cut)


def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(CONTENT, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # a write behind that fails
    try:
        with pytest.raises(UserError) as failed:
            save_checkpoint({**CONTENT, "global_step": 4}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = "cannot be written: File too large; the last.ckpt of before is still there"
    assert str(failed.value) == f"{path} {said}"
    assert load_checkpoint(path)["global_step"] == 3
    assert list(tmp_path.iterdir()) == [path]


def test_ctrl_c_while_writing_is_no_error_of_torch(tmp_path, monkeypatch):
    def interrupted(self, data):
        self.error = KeyboardInterrupt()
        raise self.error

    path = tmp_path / "last.ckpt"
    save_checkpoint(CONTENT, path)
    monkeypatch.setattr(Watched, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint({**CONTENT, "global_step": 4}, path)
    assert load_checkpoint(path)["global_step"] == 3
    assert list(tmp_path.iterdir()) == [path]


def test_the_newest_is_the_last_that_is_whole(tmp_path):
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    assert newest(tmp_path) == (last, "")
    save_checkpoint(CONTENT, last)
    save_checkpoint(CONTENT, last)
    assert newest(tmp_path) == (last, "")
    flip(last, last.stat().st_size // 2)
    path, said = newest(tmp_path)
    assert path == previous
    assert said.startswith(f"{last} is damaged (the checksum of ")
    assert said.endswith(f"is wrong): going on from {previous}, the one before it")
    last.unlink()
    assert newest(tmp_path) == (
        previous,
        f"{last} is gone: going on from {previous}, the one before it",
    )
