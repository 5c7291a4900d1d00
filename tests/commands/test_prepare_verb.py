"""``prepare`` through the command line: what it writes, goes on with, and refuses."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from pyarrow.parquet import read_table
from rows import read_rows, write_rows
from stand_ins import slurm

from instructgpt.__main__ import main as run

COUNT = 60
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon"]
MAIL = "mary.smith@example.com"


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch, request):
    monkeypatch.setattr("instructgpt.hygiene.reading.SHARD", 16)
    if "pictures" not in request.fixturenames:  # drawing is most of the time of a small preparation
        monkeypatch.setattr("instructgpt.hygiene.page.figures_of", lambda report: {})


@pytest.fixture
def pictures():
    """Asked for by tests that want the figures."""


@pytest.fixture
def source(tmp_path):
    """Demonstrations of a few users, with what each rule is there for."""
    rng = random.Random(0)
    rows = []
    for i in range(COUNT):
        words = " ".join(rng.choice(WORDS) for _ in range(9))
        row = {"prompt": f"{i} {words}?", "response": f"{words} {i}", "user": f"u{i % 7}"}
        rows.append(row | {"category": "open_qa" if i % 2 else "poetry", "score": i / 7})
    rows.append({"prompt": rows[3]["prompt"], "response": rows[3]["response"], "user": "u3"})
    rows.append({"prompt": "x" * 300 + "a", "response": "r"})
    rows.append({"prompt": "x" * 300 + "b", "response": "<script>alert(1)</script>"})
    rows.append({"prompt": f"Write to {MAIL} please", "response": "I did."})
    return write_rows(tmp_path / "raw.jsonl", rows)


def prepare(*args):
    return run(["prepare", *args, "--num_proc=1"])


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def all_rows(folder):
    return [row for path in sorted(folder.glob("*.jsonl")) for row in read_rows(path)]


@pytest.mark.usefixtures("pictures")
def test_rows_are_clean_and_the_report_says_why(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare(f"--input={source}", f"--output={out}", "--personal.splits=all") == 0
    assert "read as demonstrations" in capsys.readouterr().out
    names = ["prepare.json", "report.html", "report.json"]
    assert sorted(files(out)) == [*names, "test.jsonl", "train.jsonl", "validation.jsonl"]
    rows = all_rows(out)
    assert len(rows) == COUNT + 1
    first = next(row for row in rows if row["prompt"].startswith("1 "))
    assert first["category"] == "open_qa"
    assert first["score"] == 1 / 7
    assert first["user"] == "u1"
    report = json.loads((out / "report.json").read_text())
    rules = {rule["name"]: rule for rule in report["rules"]}
    assert rules["prefix"]["rows"] == {
        **{"came": COUNT + 4, "dropped": 2, "changed": 0, "left": COUNT + 2}
    }
    assert rules["personal"]["rows"]["dropped"] == 1
    assert rules["balance"]["on"] is False
    assert report["rows"]["written"] == COUNT + 1 == sum(report["outcome"]["rows"].values())
    shown = {one["name"]: one for one in report["use_cases"]["classes"]}
    assert shown["open_qa"]["paper_share"] == 0.124
    page = (out / "report.html").read_text()
    for text in (page, (out / "report.json").read_text()):
        assert MAIL not in text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "<svg" in page


def test_twice_the_same_command_changes_nothing(source, tmp_path, capsys):
    out = tmp_path / "out"
    args = (f"--input={source}", f"--output={out}")
    assert prepare(*args) == 0
    before, times = files(out), {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert prepare(*args) == 0
    assert "is up to date" in capsys.readouterr().out
    assert files(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("action", ["drop", "mask"])
def test_of_its_own_output_nothing_more_is_dropped(source, tmp_path, action):
    first, second = tmp_path / "first", tmp_path / "second"
    options = ("--users.most=5", "--balance.towards=uniform", "--mixture.temperature=3")
    options = (*options, f"--personal.action={action}", "--balance.least=3")
    for place, wanted in ((source, first), (first, second)):
        assert prepare(f"--input={place}", f"--output={wanted}", *options) == 0
    assert len(all_rows(first)) < COUNT
    for path in first.glob("*.jsonl"):
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_two_processes_write_what_one_does(source, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert prepare(f"--input={source}", f"--output={one}") == 0
    assert run(["prepare", f"--input={source}", f"--output={two}", "--num_proc=2"]) == 0
    assert files(one) == files(two)


SLOW = """
import sys, time
import instructgpt.hygiene.reading as reading, instructgpt.hygiene.lengths as lengths
reading.SHARD = 8
check = lengths.LengthLimits.check
def slow(self, row):
    time.sleep(.02)
    return check(self, row)
lengths.LengthLimits.check = slow
from instructgpt.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_killed_in_the_middle_it_goes_on(source, tmp_path, capsys):
    whole, out = tmp_path / "whole", tmp_path / "out"
    args = ["prepare", f"--input={source}", f"--output={out}", "--num_proc=2"]
    process = subprocess.Popen([sys.executable, "-c", SLOW, *args], stdout=subprocess.DEVNULL)
    marks = tmp_path / ".out.work" / "logs"
    wait_for(lambda: len(list(marks.glob("pass*/completions/*"))) > 10, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    done = {path: path.stat().st_mtime_ns for path in marks.glob("pass*/completions/*")}
    wait_for(lambda: not children(process.pid))
    assert run(args) == 0
    assert "goes on from" in capsys.readouterr().out
    assert done
    assert run(["prepare", f"--input={source}", f"--output={whole}", "--num_proc=1"]) == 0
    assert files(out) == files(whole)
    assert not (tmp_path / ".out.work").exists()


def wait_for(holds, process=None):
    for _ in range(600):
        if holds():
            return
        assert process is None or process.poll() is None, "it was over too soon"
        time.sleep(0.05)
    raise AssertionError("it took too long")


def children(pid):
    """Processes of the group of a killed one that are left."""
    command = ["ps", "-eo", "pid,args"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line for line in lines.splitlines() if "LengthLimits.check = slow" in line]


def test_finished_shards_are_kept(source, tmp_path, monkeypatch):
    """What was written before an interruption is not written again."""
    from instructgpt.hygiene.splits import Splits

    def stop(self, keys, splits):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Splits, "decide", stop)
        assert prepare(f"--input={source}", f"--output={out}") == 130
    rows = sorted((tmp_path / ".out.work/pass0").glob("*.jsonl"))
    times = [path.stat().st_mtime_ns for path in rows]
    read = []
    monkeypatch.setattr("instructgpt.hygiene.steps.parse_shard", lambda *args: read.append(args))
    with monkeypatch.context() as patch:
        patch.setattr(Splits, "decide", stop)
        assert prepare(f"--input={source}", f"--output={out}") == 130
    assert [path.stat().st_mtime_ns for path in rows] == times
    assert len(times) == 4
    assert read == []
    assert list((tmp_path / ".out.work/raw").glob("*.jsonl")) == []  # nobody reads them again


def test_another_input_replaces_what_is_ours(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare(f"--input={source}", f"--output={out}") == 0
    before = files(out)
    assert prepare(f"--input={source}", f"--output={out}", "--users.most=2") == 0
    assert "they are replaced" in capsys.readouterr().out
    assert files(out) != before


@pytest.mark.parametrize("change", ["edited", "added", "missing", "foreign"])
def test_what_somebody_changed_is_not_replaced(source, tmp_path, capsys, change):
    out = tmp_path / "out"
    args = (f"--input={source}", f"--output={out}")
    if change == "foreign":
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    else:
        assert prepare(*args) == 0
    if change == "edited":
        (out / "train.jsonl").write_text("{}\n")
    elif change == "added":
        (out / "notes.txt").write_text("mine")
    elif change == "missing":
        (out / "train.jsonl").unlink()
    before = files(out)
    assert prepare(*args, "--users.most=3") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert files(out) == before


def test_splits_of_a_folder_are_kept(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    write_rows(folder / "train.jsonl", [{"prompt": f"a {i}"} for i in range(30)])
    write_rows(folder / "test.jsonl", [{"prompt": f"b {i}"} for i in range(9)])
    assert prepare(f"--input={folder}", f"--output={tmp_path / 'out'}") == 0
    rows = read_rows(tmp_path / "out/test.jsonl")
    assert [row["prompt"] for row in rows] == [f"b {i}" for i in range(9)]
    assert len(all_rows(tmp_path / "out")) == 39


KINDS = {
    "comparisons": {"prompt": "p{}", "responses": ["a", "b", "c"], "ranking": [1, 2, 2]},
    "prompts": {"prompt": "p{}", "extra": {"x": [1]}},
    "text": {"text": "some text {}", "url": "u"},
    "demonstrations": {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "p{}"},
            {"role": "assistant", "content": "r"},
        ]
    },
}


@pytest.mark.parametrize("write", ["jsonl", "parquet"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_written_so_that_it_is_read_as_before(tmp_path, kind, write):
    rows = [json.loads(json.dumps(KINDS[kind]).replace("{}", str(i))) for i in range(20)]
    source = write_rows(tmp_path / "raw.jsonl", rows)
    first, second = tmp_path / "first", tmp_path / "second"
    assert prepare(f"--input={source}", f"--output={first}", f"--write={write}") == 0
    assert prepare(f"--input={first}", f"--output={second}", f"--write={write}") == 0
    report = json.loads((second / "report.json").read_text())
    assert report["kind"] == kind
    assert report["rows"]["written"] == 20
    for path in first.glob(f"*.{write}"):
        if write == "parquet":  # of which only the groups of rows differ
            assert read_table(path).equals(read_table(second / path.name))
        else:
            assert path.read_bytes() == (second / path.name).read_bytes()


def test_odd_values_survive(tmp_path):
    rows = [
        {"prompt": "\ud800 half", "response": "é\u2028\x00", "n": 1},
        {"prompt": "two", "response": "r", "n": "text", "empty": {}},
        {"prompt": "three", "response": "r", "n": [1, {"a": None}], "user": 7},
    ]
    source = write_rows(tmp_path / "raw.jsonl", rows)
    options = ("--skip=[splits]", "--on_error=skip")
    for write in ("jsonl", "parquet"):
        out = tmp_path / write
        assert prepare(f"--input={source}", f"--output={out}", f"--write={write}", *options) == 0
    found = read_rows(tmp_path / "jsonl/train.jsonl")
    assert [row["n"] for row in found] == [row["n"] for row in rows[-len(found) :]]
    assert found[-1]["user"] in (7, "7")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--input=no.jsonl"], "no.jsonl"),
        (["--input={source}", "--output={folder}"], "must not be where the input is"),
        (["--input={source}", "--users.most=0"], "--users.most must be >= 1, got 0"),
        (["--input={source}", "--kind=comparisons"], "raw.jsonl:1"),
        (["--input={source}", "--num_proc=0"], "--num_proc must be >= 1, got 0"),
        (["--input={source}", "--columns={{prompt: nothing}}"], "nothing"),
        (["--input={source}", "--lengths.most_prompt=0"], "--lengths.most_prompt"),
        (["--input={source}", "--executor=slurm"], "--slurm.partition"),
        (["--input={source}", "--executor=ray"], "pip install ray"),
        (["--input={source}", "--skip=[nothing]"], "--skip"),
        (["--input={empty}"], "at least one row"),
    ],
)
def test_what_cannot_be_is_one_line(source, tmp_path, capsys, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").write_text("")
    names = {"source": source, "folder": tmp_path, "empty": tmp_path / "empty.jsonl"}
    assert run(["prepare", *(one.format(**names) for one in options)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


def test_a_bad_row_stops_with_its_line_whatever_the_processes(tmp_path, capsys):
    rows = [{"prompt": f"p{i}", "response": "r"} for i in range(40)]
    rows[21], rows[37] = {"prompt": "p"}, {"prompt": 3}
    source = write_rows(tmp_path / "raw.jsonl", rows)
    args = ["prepare", f"--input={source}", f"--output={tmp_path / 'out'}"]
    for processes in (1, 2):
        assert run([*args, f"--num_proc={processes}"]) == 2
        assert "raw.jsonl:22" in capsys.readouterr().err
    assert run([*args, "--num_proc=2", "--on_error=skip"]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["rows"]["read"] == 40
    assert report["rows"]["checked"] == 38


def test_rows_with_a_column_that_matters_are_not_read_as_less(tmp_path, capsys):
    rows = [{"prompt": f"p{i}", "response": "r", "better": "other"} for i in range(3)]
    source = write_rows(tmp_path / "raw.jsonl", rows)
    assert prepare(f"--input={source}", f"--output={tmp_path / 'out'}") == 2
    assert '"better" changes what is learned' in capsys.readouterr().err
    assert prepare(f"--input={source}", f"--output={tmp_path / 'out'}", "--kind=prompts") == 0


def test_without_the_extra_one_line_says_what_to_install(source, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "datatrove.executor.base", None)
    assert prepare(f"--input={source}") == 2
    assert 'pip install "instructgpt[data]"' in capsys.readouterr().err


def test_what_slurm_is_told(source, tmp_path, capsys, monkeypatch):
    """A stand-in for sbatch: the jobs are a chain, and each knows its tasks."""
    calls = slurm(tmp_path / "bin", monkeypatch)
    options = ["--executor=slurm", "--slurm.partition=cpu", "--slurm.time=00:10:00"]
    options += ["--slurm.memory=3", "--slurm.environment=source here", "--num_proc=4"]
    args = ["prepare", f"--input={source}", f"--output={tmp_path / 'out'}", *options]
    assert run(args) == 0
    assert "handed to Slurm: jobs" in capsys.readouterr().out
    text = calls.read_text()
    for one in ("partition=cpu", "time=00:10:00", "mem-per-cpu=3G", "array=0-3%4", "source here"):
        assert one in text
    for job in ("pass0", "pass0-decision", "pass1", "pass1-decision", "pass2", "output"):
        assert f"job-name=prepare-{job}\n" in text
        assert (tmp_path / ".out.work/logs" / job / "executor.pik").exists()
    assert text.count("--dependency=afterok:") >= 4
    # As if they had run: the same command says that they are done, and removes what they leave.
    work = tmp_path / ".out.work"
    shutil.copytree(work, tmp_path / "left")
    assert prepare(f"--input={source}", f"--output={tmp_path / 'out'}") == 0
    shutil.move(tmp_path / "left", work)
    assert run(args) == 0
    assert "is up to date" in capsys.readouterr().out
    assert not work.exists()
