"""What goes wrong around a stage: its files are gone, its place is taken, the disk is full."""

import errno
import json
import shutil

import pytest

from instructgpt.pipeline import runner
from instructgpt.types import UserError

PAIR = """
jobs: 2
stages:
  a: {verb: fit}
  b: {verb: fit, options: {steps: 20}}
  c: {verb: fit, config: late.yaml, options: {x: "{a}"}}
"""


def when_finished(toy, monkeypatch, name, act):
    """Do something as soon as a stage has ended, while others still run."""
    memory = type(toy.board)
    plain = memory.say

    def say(self, line):
        plain(self, line)
        if line.startswith(f"finished  {name}"):
            act()

    monkeypatch.setattr(memory, "say", say)


@pytest.mark.parametrize("state", ["finished", "running"])
def test_a_file_that_is_gone_clears_nothing(toy, monkeypatch, state):
    toy.write("rows", "own.jsonl")
    toy.write("stop", "unused")
    toy.run("stages: {a: {verb: fit, options: {data: own.jsonl, stop: unused}}, b: {verb: fit}}")
    record = json.loads((toy.output / "a/stage.json").read_text())
    assert record["files"] == ["own.jsonl", "unused"]
    (toy.output / "a/stage.json").write_text(json.dumps(record | {"state": state}))
    before = toy.results()
    toy.diary()
    (toy.folder / "own.jsonl").rename(toy.folder / "moved.jsonl")
    with pytest.raises(UserError) as error:
        toy.run()
    line = f"a: own.jsonl, which it read before, must exist (in {toy.folder}); --from a runs"
    assert str(error.value).startswith(line)
    assert (toy.began(), toy.results()) == ([], before)
    toy.run(first="a")
    assert toy.began() == ["a"]
    (toy.folder / "unused").unlink()
    toy.run("stages: {a: {verb: fit, options: {data: moved.jsonl}}, b: {verb: fit}}")
    assert toy.began() == ["a"], "it does not name the file any more"


def test_called_from_elsewhere_nothing_is_cleared(toy, monkeypatch):
    toy.write("rows", "own.jsonl")
    toy.run("stages: {a: {verb: fit, options: {data: own.jsonl}}}")
    (toy.folder / "elsewhere").mkdir()
    monkeypatch.chdir(toy.folder / "elsewhere")
    with pytest.raises(UserError, match=r"a: own.jsonl, .* must exist \(in .*/elsewhere\)"):
        toy.run()
    assert "a" in toy.results()


def test_half_a_config_file_stops_no_other_stage(toy, monkeypatch):
    toy.write("{size: 1}", "late.yaml")
    when_finished(toy, monkeypatch, "a", lambda: toy.write("{size: [", "late.yaml"))
    with pytest.raises(UserError, match=r"^c: .*late.yaml:1:9: "):
        toy.run(PAIR)
    assert toy.diary("end") == ["a end", "b end"]
    assert json.loads((toy.output / "b/stage.json").read_text())["state"] == "finished"


@pytest.mark.parametrize("place", ["c.log", "c"])
def test_a_place_that_is_taken_meanwhile_stops_no_other_stage(toy, monkeypatch, place):
    toy.write("{size: 1}", "late.yaml")
    when_finished(toy, monkeypatch, "a", lambda: toy.write("mine", f"out/{place}/thesis"))
    with pytest.raises(UserError, match=r"^c: .*out/c"):
        toy.run(PAIR)
    assert toy.diary("end") == ["a end", "b end"]


def test_a_full_disk_stops_no_other_stage(toy, monkeypatch):
    """What ended cannot be written down: it will run again, and what runs may end."""
    toy.write("{size: 1}", "late.yaml")
    plain = runner.write_record

    def write_record(folder, record):
        if (folder.name, record.state) == ("a", "finished"):
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(folder, record)

    monkeypatch.setattr(runner, "write_record", write_record)
    with pytest.raises(UserError, match=r"^a: .*No space left on device"):
        toy.run(PAIR)
    assert toy.diary("end") == ["a end", "b end"]


@pytest.mark.parametrize("place", ["a.log", "pipeline.json"])
def test_a_folder_in_the_place_of_a_file_is_one_line(toy, place):
    (toy.output / place).mkdir(parents=True)
    with pytest.raises(UserError, match=f"out/{place} must be a file, got a folder"):
        toy.run("stages: {a: {verb: fit}}")
    assert toy.began() == []


@pytest.mark.parametrize(("threads", "written"), [("3", 3), ("4,2", "4,2"), ("", "")])
def test_any_number_of_threads_is_written_down(toy, monkeypatch, threads, written):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    toy.run("stages: {a: {verb: fit}}")
    assert json.loads((toy.output / "pipeline.json").read_text())["threads"] == written


@pytest.mark.parametrize("text", ["{2020-01-01: x}", "a: &x {b: *x}"])
def test_a_config_file_that_cannot_be_is_one_line(toy, text):
    toy.write(text, "odd.yaml")
    with pytest.raises(UserError, match=r"odd.yaml: (keys must be|aliases must not form a circle)"):
        toy.run("stages: {a: {verb: fit, config: odd.yaml}}")


def test_a_lost_folder_runs_again_with_what_depends_on_it(toy):
    toy.write("{}", "late.yaml")
    toy.run(PAIR)
    toy.began()
    shutil.rmtree(toy.output / "a")
    toy.run()
    assert toy.began() == ["a", "c"]
