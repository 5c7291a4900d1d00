"""Whole calls of a pipeline of toys: what runs when, what is skipped, how it ends."""

import json
import shutil

import pytest

from instructgpt.pipeline.call import run_pipeline
from instructgpt.pipeline.program import Program
from instructgpt.types import UserError, WaitingForLabelsError

DIAMOND = """
jobs: 2
stages:
  world: {verb: predict, options: {size: 1}}
  left: {verb: fit, options: {init: "{world}", steps: 3}}
  right: {verb: fit, options: {init: "{world}"}}
  report: {verb: predict, options: {a: ["{left}", "{right}"]}}
"""
ALL = ["world", "left", "right", "report"]


def test_everything_runs_once_in_order(toy):
    toy.run(DIAMOND)
    diary = toy.diary()
    assert sorted(diary) == sorted(f"{name} {what}" for name in ALL for what in ("begin", "end"))
    assert diary[:2] == ["world begin", "world end"]
    assert diary[-2:] == ["report begin", "report end"]
    assert set(toy.results()) == set(ALL)
    assert toy.board.lines[0] == "start     world"
    assert toy.board.lines[-1].startswith("4 stages finished in 0:0")
    toy.run()
    assert toy.diary() == []
    assert toy.board.lines[0] == "finished earlier: world, left, right, report"


def test_two_places_run_side_by_side_and_one_does_not(toy):
    text = DIAMOND.replace("steps: 3", "steps: 30").replace('"{world}"}', '"{world}", steps: 30}')
    toy.run(text)
    assert toy.diary()[2:4] in (["left begin", "right begin"], ["right begin", "left begin"])
    toy.run(text, jobs=1, output=str(toy.folder / "b"))
    toy.output = toy.folder / "b"
    assert toy.diary()[2:6] == ["left begin", "left end", "right begin", "right end"]


def test_what_the_most_must_wait_for_begins_first(toy):
    """With a and c that is 1 + 9, with b 5; without costs the order is that of the list."""
    text = """
jobs: 1
stages:
  a: {verb: fit, cost: 1}
  b: {verb: fit, cost: 5}
  c: {verb: fit, cost: 9, options: {init: "{a}"}}
"""
    toy.run(text)
    assert toy.began() == ["a", "c", "b"]
    for cost in (1, 5, 9):
        text = text.replace(f", cost: {cost}", "")
    toy.run(text, output=str(toy.folder / "b"))
    toy.output = toy.folder / "b"
    assert toy.began() == ["a", "b", "c"]


WIDE = """
jobs: 2
stages:
  a: {verb: fit, options: {steps: 10}}
  wide: {verb: fit, threads: 3, options: {tell: 1}}
  b: {verb: fit}
"""


def test_a_stage_with_threads_takes_the_places_of_others(toy):
    """Of 3 threads it gets 2, with two places; b, behind it, leaves it the one that a left."""
    toy.run(WIDE)
    told = "wide threads={0},{0}"
    alone = ["a begin", "a end", "wide begin", told, "wide end", "b begin", "b end"]
    assert toy.diary() == [line.format(2) for line in alone]
    written = json.loads((toy.output / "pipeline.json").read_text())
    assert [stage.get("threads") for stage in written["stages"]] == [None, 2, None]
    toy.run(WIDE.replace("threads: 3, ", ""))
    assert toy.diary() == [], "what was done with more threads is done"
    toy.run(WIDE, jobs=1, output=str(toy.folder / "b"))
    toy.output = toy.folder / "b"
    assert toy.diary() == [line.format(1) for line in alone]


@pytest.mark.parametrize(
    ("old", "new", "again"),
    [
        ("size: 1", "size: 2", ALL),
        ("steps: 3", "steps: 4", ["left", "report"]),
        ('["{left}", "{right}"]', '["{right}"]', ["report"]),
    ],
)
def test_a_change_runs_itself_and_what_follows_from_it(toy, old, new, again):
    toy.run(DIAMOND)
    toy.diary()
    toy.run(DIAMOND.replace(old, new))
    changed = toy.results()
    assert sorted(toy.began()) == sorted(again)
    assert f"start     {again[0]}  (what it needs has changed: begins again)" in toy.board.lines
    other = toy.folder / "fresh"
    toy.run(output=str(other))
    toy.output = other
    assert toy.results() == changed, "as if it had been run from nothing"


def test_another_seed_runs_everything_again(toy):
    toy.run(DIAMOND)
    toy.diary()
    toy.run(seed=1)
    assert sorted(toy.began()) == sorted(ALL)
    assert json.loads((toy.output / "pipeline.json").read_text())["seed"] == 1


def test_what_was_run_is_written_down(toy):
    toy.run(DIAMOND, only="world")
    run = json.loads((toy.output / "pipeline.json").read_text())
    assert run["command"].startswith("python -m instructgpt pipeline --config=")
    assert run["command"].endswith("toy.yaml --only=world")
    assert [row["state"] for row in run["stages"]] == ["finished"] + ["not finished"] * 3
    assert run["stages"][0]["seconds"] > 0
    assert run["status"] == "stopped"
    assert "size: 1" in run["config"]
    assert {"python", "torch"} <= set(run["versions"])
    first, total = run["stages"][0]["seconds"], run["total_seconds"]
    toy.run()
    run = json.loads((toy.output / "pipeline.json").read_text())
    assert run["status"] == "finished"
    assert run["stages"][0]["seconds"] == first, "of the call that ran it"
    assert run["total_seconds"] > total


def test_only_some_stages(toy):
    with pytest.raises(UserError, match="--only left: its input world must be finished"):
        toy.run(DIAMOND, only="left")
    toy.run(only="left, world")
    assert toy.began() == ["world", "left"]
    toy.run(only="right")
    assert toy.began() == ["right"]
    with pytest.raises(UserError, match="--only right: its input world must be finished"):
        toy.run(only="right", seed=3)
    with pytest.raises(UserError, match="--only: unknown stage 'lef'; did you mean left"):
        toy.run(only="lef")
    with pytest.raises(UserError, match="--only must name a stage"):
        toy.run(only=" ,")


def test_from_a_stage_on(toy):
    toy.run(DIAMOND)
    toy.diary()
    toy.run(first="left")
    assert toy.began() == ["left", "report"]
    toy.run(first="left", only="left")
    assert toy.began() == ["left"]
    toy.run()
    assert toy.began() == ["report"], "what depends on it was to run anew, too"
    with pytest.raises(UserError, match="--only report: its input left must be finished"):
        toy.run(first="world", only="world,report")
    shutil.rmtree(toy.output / "world")
    toy.run(only="world")
    toy.began()
    toy.run()
    assert sorted(toy.began()) == ["left", "report", "right"], "also of an input that was lost"
    with pytest.raises(UserError, match="--from: unknown stage 'x'"):
        toy.run(first="x")


def test_only_across_a_gap_of_several_stages(toy):
    toy.run("""
stages:
  a: {verb: fit}
  b: {verb: fit, options: {x: "{a}"}}
  c: {verb: fit, options: {x: "{b}"}}
  d: {verb: fit, options: {x: "{c}"}}
  e: {verb: fit, options: {x: "{c}"}}
""")
    shutil.rmtree(toy.output / "e")
    with pytest.raises(UserError, match="--only d: its input c must be finished"):
        toy.run(first="a", only="a,d")
    with pytest.raises(UserError, match="--only e: its input c must be finished"):
        toy.run(first="a", only="a,e")
    toy.began()
    toy.run(only="e")
    assert toy.began() == ["e"], "nothing was marked to run anew"


MATRIX = """
jobs: 1
matrix:
  algorithm: {ppo: {options: {steps: 2}}, rloo: {}}
stages:
  sft: {verb: fit}
  <algorithm>: {verb: fit, options: {init: "{sft}"}}
  <algorithm>_said: {verb: predict, options: {model: "{<algorithm>}"}}
  report: {verb: fit, options: {said: ["{ppo_said}", "{rloo_said}"]}}
"""


def test_a_change_of_one_value_runs_its_stages_alone(toy):
    toy.run(MATRIX)
    assert toy.began() == ["sft", "ppo", "rloo", "ppo_said", "rloo_said", "report"]
    toy.run(MATRIX.replace("rloo: {}", "rloo: {options: {steps: 3}}"))
    assert toy.began() == ["rloo", "rloo_said", "report"]
    more = MATRIX.replace("rloo: {}", "rloo: {options: {steps: 3}}, dpo: {}")
    toy.run(more)
    assert toy.began() == ["dpo", "dpo_said"], "what is there stays as it is"
    toy.run(more, first="ppo")
    assert toy.began() == ["ppo", "ppo_said", "report"]


# -- what ends badly


def failing(toy, options, **given):
    toy.run(
        f"""
jobs: 2
stages:
  a: {{verb: fit, options: {options}}}
  b: {{verb: fit, options: {{steps: 20}}}}
  c: {{verb: fit}}
  d: {{verb: fit, options: {{x: "{{a}}"}}}}
""",
        **given,
    )


def test_wrong_input_of_a_stage_ends_in_its_own_line(toy):
    with pytest.raises(UserError) as error:
        failing(toy, '{say: "instructgpt: error: lr must be > 0, got -1", code: 2}')
    assert str(error.value) == f"a: lr must be > 0, got -1 (log: {toy.output}/a.log)"
    assert toy.diary("end") == ["b end"], "what runs may end, nothing new starts"
    assert "failed    a; b may end, nothing new starts" in toy.board.lines


def test_a_bug_of_a_stage_shows_the_end_of_its_log(toy, capsys):
    with pytest.raises(SystemExit) as stop:
        failing(toy, "{raise: true}")
    assert stop.value.code == 1
    error = capsys.readouterr().err.splitlines()
    assert "  RuntimeError: a bug" in error
    line = f"instructgpt: error: a ended with exit code 1; its log is {toy.output}/a.log"
    assert error[-1] == line


def test_a_stage_that_is_killed_says_so(toy, capsys, monkeypatch):
    toy.write("import os\ndef main(args): os.kill(os.getpid(), 9)", "killed.py")
    toy.write(f"output: {toy.output}\nstages: {{a: {{verb: fit}}}}")
    monkeypatch.syspath_prepend(str(toy.folder))
    with pytest.raises(SystemExit):
        run_pipeline("toy.yaml", Program("killed:main", {}), board=toy.board)
    assert "a ended with signal 9, perhaps for want of memory" in capsys.readouterr().err


def test_a_stage_that_failed_goes_on_where_it_was(toy):
    text = "stages: {a: {verb: fit, options: {steps: 3, code: 1}}}"
    with pytest.raises(SystemExit):
        toy.run(text)
    (toy.output / "a.repaired").touch()
    toy.run()
    assert toy.diary() == ["a begin", "a resume", "a end"]
    assert toy.board.lines[0] == "start     a  (goes on from its checkpoint)"


def test_people_are_waited_for_and_what_they_wrote_is_kept(toy):
    text = """
stages:
  sample: {verb: predict, options: {size: 1}}
  label: {verb: predict, options: {x: "{sample}", wait: 1}}
  reward: {verb: fit, options: {x: "{label}"}}
"""
    with pytest.raises(WaitingForLabelsError, match=r"label: rank the responses \(log: "):
        toy.run(text)
    with pytest.raises(WaitingForLabelsError):
        toy.run()
    by_hand = toy.output / "label" / "by_hand.txt"
    by_hand.write_text("1 2 3")
    toy.diary()
    toy.run()
    assert toy.began() == ["label", "reward"]
    assert by_hand.read_text() == "1 2 3"
    toy.run(first="label")
    assert toy.began() == ["label", "reward"]
    assert by_hand.read_text() == "1 2 3"
    with pytest.raises(WaitingForLabelsError):
        toy.run(text.replace("size: 1", "size: 2"))
    assert not by_hand.exists(), "these rankings were of other responses"
    assert (toy.output / "label.kept_1" / "by_hand.txt").read_text() == "1 2 3"


def test_what_people_correct_later_is_read_again(toy):
    text = """
stages:
  label: {verb: predict, options: {wait: 1}}
  reward: {verb: fit, options: {x: "{label}"}}
  ppo: {verb: fit, options: {x: "{reward}"}}
"""
    with pytest.raises(WaitingForLabelsError):
        toy.run(text)
    toy.write("1 2 3", "out/label/by_hand.txt")
    toy.write("1 2 3", "out/label/comparisons.jsonl")
    toy.run()
    toy.began()
    toy.run()
    assert toy.began() == []
    toy.write("3 2 1", "out/label/comparisons.jsonl")
    toy.run(only="label")
    assert toy.began() == ["label"]
    assert (toy.output / "label/comparisons.jsonl").read_text() == "3 2 1"
    toy.run()
    assert toy.began() == ["reward", "ppo"], "as they would had the first call been killed"


def test_files_of_others_are_never_touched(toy):
    toy.write("mine", "out/right/thesis.txt")
    with pytest.raises(UserError, match="out/right must be a folder of the pipeline"):
        toy.run(DIAMOND)
    assert toy.began() == [], "told before anything runs"
    assert (toy.output / "right/thesis.txt").read_text() == "mine"


def test_all_that_a_stage_writes_is_in_its_log(toy, capfd):
    with pytest.raises(SystemExit):
        toy.run('stages: {a: {verb: fit, options: {say: "to stderr", steps: 2, code: 7}}}')
    log = (toy.output / "a.log").read_text().splitlines()
    assert log[1].startswith("$ python -m instructgpt fit --output ")
    steps = [f"fit {step}/2  [bold]not markup[/bold]" for step in (1, 2)]
    assert log[2:] == [*steps, "to stderr"]
    assert "ended with exit code 7" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "--seed must be >= 0, got -1"),
        ({"jobs": 0}, "--jobs must be >= 1, got 0"),
    ],
)
def test_options_of_the_command_line(toy, options, message):
    with pytest.raises(UserError, match=message):
        toy.run(DIAMOND, **options)


def test_a_refused_call_changes_nothing(toy):
    toy.run(DIAMOND)
    toy.diary()
    with pytest.raises(UserError, match="--from world: must be among --only, got left"):
        toy.run(first="world", only="left")
    toy.run()
    assert toy.diary() == []


def test_a_config_file_that_changes_meanwhile_stops_the_stage(toy, monkeypatch):
    """It would run with settings that its record does not name."""
    toy.write("{size: 1}", "late.yaml")
    text = DIAMOND.replace(
        "{verb: predict, options: {a:", "{verb: fit, config: late.yaml, options: {a:"
    )
    say = toy_display_that(toy, monkeypatch)
    with pytest.raises(UserError, match="report: what it reads changed while the pipeline ran"):
        toy.run(text)
    assert "left" in say
    toy.write("{size: 1}", "late.yaml")
    with pytest.raises(UserError, match="run the same command without --from again"):
        toy.run(first="world")


def toy_display_that(toy, monkeypatch):
    """Changes the file as soon as the first stage has ended; the stages that ended so far."""
    ended = []
    memory = type(toy.board)
    plain = memory.say

    def say(self, line):
        plain(self, line)
        if line.startswith("finished  "):
            ended.append(line.split()[1])
            toy.write("{size: 2}", "late.yaml")

    monkeypatch.setattr(memory, "say", say)
    return ended
