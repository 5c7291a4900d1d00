"""Pipelines of toy verbs."""

import sys
from pathlib import Path

import pytest

from instructgpt.commands.functions import FUNCTIONS
from instructgpt.pipeline.call import run_pipeline
from instructgpt.pipeline.program import Program

HERE = str(Path(__file__).parent)
collect_ignore = ["cut_verbs.py", "toy_verbs.py"]
PROGRAM = Program("toy_verbs:main", FUNCTIONS)


class Memory:
    """A board that keeps what it is told."""

    def __init__(self):
        self.lines, self.statuses = [], []

    def say(self, text):
        self.lines.append(text)

    def update(self, status):
        self.statuses.append(status)

    def close(self):
        pass


class Toy:
    """Writes pipelines into a folder and runs them."""

    def __init__(self, folder):
        self.folder = folder
        self.output = folder / "out"
        self.board = Memory()

    def write(self, text, name="toy.yaml"):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
        return path

    def run(self, text=None, **options):
        if text is not None:
            self.write(f"output: {self.output}\n{text}")
        self.board = Memory()
        run_pipeline(str(self.folder / "toy.yaml"), PROGRAM, board=self.board, **options)

    def diary(self, *kinds):
        """Stage and event in order; forgets them."""
        path = self.output / "diary.txt"
        if not path.exists():
            return []
        rows = [line.split() for line in path.read_text().splitlines()]
        path.unlink()
        return [f"{row[0]} {row[1]}" for row in rows if not kinds or row[1] in kinds]

    def began(self):
        return [row.split()[0] for row in self.diary("begin", "resume")]

    def results(self):
        return {p.parent.name: p.read_text() for p in sorted(self.output.glob("*/result.txt"))}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE)  # where the children find the toy verbs
    monkeypatch.chdir(tmp_path)
    assert HERE in sys.path
    return Toy(tmp_path)
