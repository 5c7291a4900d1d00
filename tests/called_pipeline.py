"""The pipeline of toys in a process of its own, and whether anything of it still runs."""

import os
import subprocess
import sys
import time
from pathlib import Path

TESTS, ROOT = Path(__file__).parent / "pipeline", Path(__file__).parents[1]
CALL = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest may ignore them
signal.signal(signal.SIGTERM, signal.SIG_DFL)
from instructgpt.errors import guarded
from instructgpt.pipeline.call import run_pipeline
from instructgpt.pipeline.program import Program
sys.exit(guarded(lambda args: run_pipeline("toy.yaml", Program("toy_verbs:main", {})), []))
"""


class Call:
    """The pipeline in a process of its own, as from a shell."""

    def __init__(self, toy, paths=(), **streams):
        path = os.pathsep.join([*map(str, paths), str(TESTS), str(ROOT)])
        self.process = subprocess.Popen(
            [sys.executable, "-c", CALL],
            cwd=toy.folder,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # a process group, as a shell makes it for a command
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **streams},
        )

    def read_until(self, text):
        for line in self.process.stdout:
            if text in line:
                return
        raise AssertionError(f"ended without {text!r}")

    def rest(self):
        return self.process.communicate(timeout=60)[0]


def wait_for(toy, text):
    """Until the diary says something."""
    path = toy.output / "diary.txt"
    wait_until(lambda: path.exists() and text in path.read_text())


def wait_until(happened):
    """Until ``happened()`` is true."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if happened():
            return
        time.sleep(0.02)
    raise AssertionError(f"never: {happened}")


def pids(toy):
    """Of stages and of what they started."""
    path = toy.output / "diary.txt"
    rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return {int(row[2]) for row in rows if row[1] in ("begin", "resume", "pid")}


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_gone(numbers, patience=10.0):
    deadline = time.monotonic() + patience
    while any(map(alive, numbers)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
