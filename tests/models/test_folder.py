"""Folders that are written whole: modes, links, and what is in the way."""

import os
import signal
import stat

import pytest
from harness import killed

from instructgpt.models import folder as folders
from instructgpt.models.folder import check_writable, here, replacing, write_text
from instructgpt.types import UserError


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def modes(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_modes_follow_the_umask(tmp_path, umask):
    with replacing(tmp_path / "export", "mark") as folder:
        for place in (folder, folder / "inner"):
            place.mkdir(exist_ok=True)
            (place / "mark").touch(mode=0o600)
    export = tmp_path / "export"
    assert [modes(export / name) for name in ("mark", "inner/mark")] == [0o640, 0o640]
    assert [modes(path) for path in (export, export / "inner")] == [0o750, 0o750]


def test_a_link_stays_one(tmp_path):
    real = tmp_path / "elsewhere" / "big"
    real.mkdir(parents=True)
    (real / "mark").write_text("old")
    (tmp_path / "export").symlink_to(real)
    with replacing(tmp_path / "export", "mark") as folder:
        (folder / "mark").write_text("new")
    assert (tmp_path / "export").is_symlink()
    assert (real / "mark").read_text() == "new"
    assert [path.name for path in real.parent.iterdir()] == ["big"]
    (tmp_path / "rows.jsonl").write_text("")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "rows.jsonl")
    write_text(tmp_path / "link.jsonl", "row")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "rows.jsonl").read_text() == "row"


@pytest.mark.parametrize("name", ["nowhere", "loop", "loop/inner"])
def test_links_that_lead_nowhere(tmp_path, name):
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(
        UserError, match=rf"--output must be a folder, got .*{name}: .* leads nowhere"
    ):
        check_writable(tmp_path / name, "--output")
    if name != "loop/inner":
        with (
            pytest.raises(UserError, match=r"must not write to .*, a link that leads nowhere"),
            replacing(tmp_path / name, "mark"),
        ):
            pass


def test_a_folder_that_takes_nothing(tmp_path):
    with pytest.raises(UserError, match="--output must be a folder to write to, got /proc/run: "):
        check_writable(tmp_path / "/proc/run", "--output")
    with pytest.raises(UserError, match="file name too long"):
        check_writable(tmp_path / ("x" * 300), "--output")
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_of_a_file_is_removed(tmp_path, monkeypatch):
    """By the next process that writes there; what may be another living one's is not touched."""

    def write():
        monkeypatch.setattr(folders, "sync_file", lambda file: os.kill(os.getpid(), signal.SIGKILL))
        write_text(tmp_path / "rows.jsonl", "half")

    killed(write)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(f"@{here()}.tmp")
    others = {f".rows.jsonl.{os.getppid()}@{here()}.tmp"}  # it is alive
    others |= {left.name.replace("@", "@another-"), ".rows.jsonl.tmp", "rows.1@x.tmp"}
    for name in others:
        (tmp_path / name).write_text("")
    write_text(tmp_path / "other.jsonl", "")
    assert {path.name for path in tmp_path.iterdir()} == {*others, "other.jsonl"}
