"""Evaluation, labels and the command line without the paper in miniature."""

import json
import re
import subprocess
import sys
from pathlib import Path

from rows import write_rows

import instructgpt.evaluation
import instructgpt.miniature

WITHOUT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("instructgpt.miniature"):
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Refuse())
"""

EVALUATE = (
    WITHOUT
    + """
from instructgpt.evaluation.evaluation import Evaluation
from instructgpt.evaluation.judging import Wanted

found = Evaluation({"mine": "mine.jsonl", "yours": "yours.jsonl"}, None, "yours", None, 0)
found.compare(Wanted(function="my_judge:longer"))
found.test_reward_model(None, None)
found.over_optimise(None, None, None)
found.look_back(None)
found.write("out", "Two models", None)
"""
)

LABEL = (
    WITHOUT
    + """
from instructgpt.__main__ import main

sys.exit(main(["label", "--samples", "samples.jsonl", "--by", "people", "--output", "out"]))
"""
)


def run(program, folder):
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_plain_answers_are_judged_and_reported_without_the_miniature(tmp_path):
    for name, texts in {"mine": ["long answer", "b"], "yours": ["a", "c"]}.items():
        # meta and set as the world writes them: without a grader they say nothing
        rows = [
            {"prompt": f"Q{i}", "responses": [text], "meta": {"kind": "x"}, "set": "closed"}
            for i, text in enumerate(texts)
        ]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    (tmp_path / "my_judge.py").write_text(
        "def longer(prompt, first, second):\n"
        "    return 0.5 + (len(first) > len(second)) / 2 - (len(first) < len(second)) / 2\n"
    )
    done = run(EVALUATE, tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    (row,) = results["win_rates"]
    assert (row["value"], row["n"]) == (0.75, 2)  # one longer, one as long
    page = (tmp_path / "out" / "report.html").read_text()
    assert "75.0" in page
    assert 'id="win_rates"' in page
    assert 'id="claims"' not in page


def test_people_rank_without_the_miniature(tmp_path):
    """No verb that has a use of its own imports it before it is needed."""
    write_rows(tmp_path / "samples.jsonl", [{"prompt": "Q", "responses": ["a", "b"]}])
    done = run(LABEL, tmp_path)
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "out" / "to_label.jsonl").exists()


def test_the_evaluation_knows_no_model_of_the_miniature():
    """Which model plays which part stands in the options."""
    names = re.compile(r"""["'](gpt|gpt_few_shot|sft|ppo_ptx|gpt_big)["']""")
    files = sorted(Path(instructgpt.evaluation.__file__).parent.rglob("*.py"))
    files += sorted(Path(instructgpt.miniature.__file__).parent.glob("*.py"))
    assert len(files) > 20
    assert [file.name for file in files if names.search(file.read_text())] == []
