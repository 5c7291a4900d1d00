"""A power cut at any moment: what was not synced is gone, and no state that was saved is lost."""

import os
from pathlib import Path

import pytest
import torch

import instructgpt.models.checkpoint as files
from instructgpt.models.checkpoint import LAST, PREVIOUS, load_checkpoint, newest, save_checkpoint


class Disk:
    """What would be found after a power cut: bytes as they were synced, names as at two moments.

    The names of a folder reach the disk when it is synced, and may do so before: after a cut
    there are those of the last time, or those of now.
    """

    def __init__(self, folder, monkeypatch):
        self.folder, self.bytes, self.names = folder, {}, {}
        self.cuts = []
        for name in ("replace", "rename", "link", "unlink"):
            monkeypatch.setattr(os, name, self.watched(getattr(os, name)))
        original = os.fsync

        def fsync(number):
            original(number)
            found = os.fstat(number)
            if found.st_ino == os.stat(folder).st_ino:
                self.names = self.listed()
            else:
                self.bytes[found.st_ino] = Path(f"/proc/self/fd/{number}").read_bytes()
            self.cut()

        monkeypatch.setattr(files.os, "fsync", fsync)

    def watched(self, original):
        def call(*args, **options):
            original(*args, **options)
            there = set(self.listed().values()) | set(self.names.values())
            self.bytes = {inode: kept for inode, kept in self.bytes.items() if inode in there}
            self.cut()

        return call

    def listed(self):
        return {path.name: path.stat().st_ino for path in self.folder.iterdir()}

    def cut(self):
        """Remember what would be there if the power went now."""
        for names in (self.names, self.listed()):
            held = {name: self.bytes.get(inode, b"") for name, inode in names.items()}
            self.cuts.append((self.done, held))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads open files by their number")
def test_no_state_that_was_saved_is_lost(tmp_path, monkeypatch):
    folder, found = tmp_path / "checkpoints", tmp_path / "found"
    folder.mkdir()
    disk = Disk(folder, monkeypatch)
    disk.done = 0
    for step in range(1, 5):
        content = {"global_step": step, "instructgpt": {"class_path": "a.B"}}
        save_checkpoint({**content, "x": torch.arange(100.0) * step}, folder / LAST)
        disk.done = step
    monkeypatch.undo()
    assert len(disk.cuts) > 20
    found.mkdir()
    for done, held in disk.cuts:
        for path in found.iterdir():
            path.unlink()
        for name, content in held.items():
            (found / name).write_bytes(content)
        if done:
            path, _ = newest(found)
            assert path.name in (LAST, PREVIOUS)
            state = load_checkpoint(path)
            assert state["global_step"] in (done, done + 1)
            assert torch.equal(state["x"], torch.arange(100.0) * state["global_step"])
