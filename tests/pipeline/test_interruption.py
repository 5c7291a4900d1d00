"""Killed, stopped, called twice: what runs ends with the parent, and the next call completes it."""

import json
import os
import pty
import random
import signal
import subprocess
import sys
import time

import pytest
from called_pipeline import CALL, ROOT, Call, all_gone, pids, wait_for, wait_until

from instructgpt.pipeline.folder import locked_output
from instructgpt.types import UserError

CHAIN = """
jobs: 2
stages:
  a: {verb: fit, options: {steps: 10, child: 1}}
  b: {verb: predict, options: {steps: 10, x: "{a}", child: 1}}
  c: {verb: fit, options: {steps: 20, x: "{a}", child: 1}}
  d: {verb: predict, options: {x: "{b}", y: "{c}"}}
"""


def ready(toy, text=CHAIN):
    toy.write(f"output: {toy.output}\n{text}")
    return toy


def test_killed_anywhere_and_called_again_it_ends_with_the_same(toy):
    """The first time with a checkpoint to resume, then each time later, until a call ends."""
    chain = CHAIN.replace("steps: 10", "steps: 50", 1)
    ready(toy, chain).run()
    expected = toy.results()
    toy.output = toy.folder / "killed"
    ready(toy, chain)
    noise, kills = random.Random(0), 0
    while True:
        call = Call(toy)
        call.process.stdout.readline()
        if kills == 0:
            wait_until((toy.output / "a/checkpoints/last.ckpt").exists)
        else:
            time.sleep(noise.uniform(0.0, 0.2) * (1 + kills))
        if call.process.poll() is not None:
            break
        call.process.kill()
        call.process.communicate()
        kills += 1
        assert all_gone(pids(toy)), "nothing of it still runs"
        for folder in toy.output.glob("*/stage.json"):
            finished = json.loads(folder.read_text())["state"] == "finished"
            assert not finished or (folder.parent / "result.txt").exists()
        if kills >= 6:
            break
    toy.run()
    assert kills >= 3
    assert toy.results() == expected
    diary = toy.diary()
    assert "a resume" in diary
    assert diary.count("a end") <= 2


def test_ctrl_c_lets_stages_save_and_the_next_call_goes_on(toy):
    ready(toy, CHAIN.replace("steps: 10", "steps: 100"))
    call = Call(toy)
    wait_for(toy, "a begin")
    time.sleep(0.3)
    os.killpg(call.process.pid, signal.SIGINT)  # as a terminal does
    output = call.rest()
    assert call.process.returncode == 130
    assert "stopping: fit saves its state, other stages will begin again; once more" in output
    assert "stopped   a" in output
    assert output.rstrip().endswith("stopped; the same command goes on from here")
    assert "Traceback" not in output
    assert all_gone(pids(toy))
    assert [row for row in toy.diary() if "pid" not in row] == ["a begin", "a saved"]
    toy.run(only="a")
    assert toy.diary("begin", "resume", "end") == ["a resume", "a end"]


@pytest.mark.parametrize("seconds", [0.0, 0.03])
def test_ctrl_c_while_the_first_stage_is_started(toy, seconds):
    """The server of the stages has begun, and does not ignore signals yet."""
    ready(toy, CHAIN)
    call = Call(toy)
    call.read_until("start     a")
    time.sleep(seconds)
    os.killpg(call.process.pid, signal.SIGINT)
    output = call.rest()
    assert call.process.returncode == 130
    assert "Traceback" not in output
    assert output.rstrip().endswith("stopped; the same command goes on from here")


def test_a_second_signal_does_not_wait(toy):
    toy.write(
        "import signal, time\n"
        "def main(args):\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    print('deaf', flush=True)\n"
        "    time.sleep(60)\n",
        "toy_verbs.py",
    )
    ready(toy, "stages: {a: {verb: fit}}")
    call = subprocess.Popen(
        [sys.executable, "-c", CALL],
        cwd=toy.folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(toy.folder), str(ROOT)])},
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    log = toy.output / "a.log"
    while not log.exists() or "deaf" not in log.read_text():
        time.sleep(0.02)
    os.killpg(call.pid, signal.SIGTERM)
    assert "start" in call.stdout.readline()
    while "stopping: " not in (line := call.stdout.readline()):  # progress of a slow start
        assert "deaf" in line or "% done" in line, line
    time.sleep(0.7)
    assert call.poll() is None, "the stage may take its time"
    os.killpg(call.pid, signal.SIGINT)
    assert "stopped   a" in call.communicate(timeout=20)[0]
    assert call.returncode == 128 + signal.SIGTERM


def test_a_signal_that_comes_twice_at_once_counts_once(toy):
    """``timeout`` sends one to the process and one to its group."""
    ready(toy, CHAIN.replace("steps: 10", "steps: 100"))
    call = Call(toy)
    wait_for(toy, "a begin")
    time.sleep(0.3)
    for _ in range(2):
        os.kill(call.process.pid, signal.SIGINT)
        time.sleep(0.02)
    call.rest()
    assert call.process.returncode == 130
    assert "a saved" in toy.diary()


def test_without_a_reader_the_stages_go_on(toy):
    """Such as ``pipeline | head -1``."""
    call = Call(ready(toy))
    assert "start     a" in call.process.stdout.readline()
    call.process.stdout.close()
    assert call.process.wait(60) == 0
    assert set(toy.results()) == {"a", "b", "c", "d"}


def test_two_pipelines_do_not_share_a_folder(toy):
    with locked_output(toy.output), pytest.raises(UserError, match="is in use by another pipeline"):
        ready(toy).run()


def test_on_a_terminal_there_is_a_bar(toy):
    ready(toy, "stages: {a: {verb: fit, options: {steps: 150}}}")
    master, slave = pty.openpty()
    call = Call(toy, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    while True:
        try:
            shown += os.read(master, 65536)
        except OSError:  # how a terminal says that nobody is at the other end
            break
    os.close(master)
    assert call.process.wait() == 0
    text = shown.decode()
    assert "start     a" in text
    assert "fit 1" in text, "the last line of the stage"
    assert "[bold]not markup[/bold]" in text
    assert "\x1b[2K" in text, "redrawn in place"
    assert "1 stage finished in 0:00:0" in text.rstrip().splitlines()[-1]
