"""The README's commands are extracted and run, in a copy of the repository, as a reader would."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_it_begins_with_a_command():
    lines = README.splitlines()
    assert lines.index("```bash") < 15
    assert "pip install -c constraints.txt -e ." in lines[:15]


def test_the_tests_are_what_ci_runs():
    ci = (ROOT / ".ci" / "run").read_text()
    assert "OMP_NUM_THREADS=1 python -m pytest -n auto\n" in BLOCKS[-1]
    assert "python -m pytest -n auto\n" in ci
    assert "pip install --quiet -c constraints.txt -e '.[test,dev,bench,lm-eval]'" in ci


def test_named_files_exist():
    for name in re.findall(r"(?:configs|examples|docs|benchmarks)/[\w/]+\.\w+", README):
        assert (ROOT / name).is_file(), name
    tree = README.split("## Where things are")[1]
    tree = re.search(r"^instructgpt/\n((?:  .*\n)+)", tree, re.MULTILINE)[1]
    named = re.findall(r"(?:^ |(?<=/)) +(\w+(?:\.py|/))", tree, re.MULTILINE)
    rooms = {f"{path.parent.name}/" for path in (ROOT / "instructgpt").glob("*/__init__.py")}
    assert rooms <= set(named)
    for name in named:
        assert (ROOT / "instructgpt" / name).exists(), name


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_commands_run_one_after_the_other(tmp_path):
    for folder in ("configs", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    commands = "\n".join(BLOCKS).replace("\\\n", " ").splitlines()
    ours = [c for c in commands if c.startswith("python ")]
    # The first one takes minutes; its quick form is among the others.
    assert ours.pop(0) == "python -m instructgpt pipeline"
    # The second one needs a model and rows: tests/test_real_pipeline.py.
    real = "python -m instructgpt pipeline --config configs/real/pipeline.yaml"
    assert ours.pop(0) == f"{real} --model FOLDER_OR_ID --comparisons FILE"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    script = "\n".join(command.removesuffix("&&") for command in ours)
    done = subprocess.run(
        ["bash", "-euxc", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1150,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = tmp_path / "runs"
    for stage in ("pretrain", "sft", "reward", "dpo", "ppo_ptx", "mine", "python/sft", "own"):
        assert (runs / stage / "export" / "instructgpt.json").is_file()
    assert "\nThe cow " in done.stdout  # what the example in Python answers
    assert "read examples/quiz.jsonl: 48 Quiz, comparison" in done.stdout
    assert len((runs / "answers.jsonl").read_text().splitlines()) == 112
    assert (runs / "evaluation" / "report.html").is_file()
    assert (runs / "scores" / "predictions.jsonl").is_file()
    assert (runs / "quick" / "evaluate" / "report.html").is_file()
    assert len((runs / "world" / "text.jsonl").read_text().splitlines()) == 1000
    said = {path: json.loads(path.read_text()) for path in runs.rglob("metrics.json")}
    found = {path: metrics["doctor"] for path, metrics in said.items() if "doctor" in metrics}
    assert len(found) >= 8  # what is trained in Python has no doctor
    assert not any(found.values()), found  # at their shipped length the examples are healthy
    assert (runs / "exported" / "instructgpt.json").is_file()
