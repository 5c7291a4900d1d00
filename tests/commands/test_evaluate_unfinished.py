"""``evaluate`` goes on where it was killed, and with what other commands have scored."""

import json
import math

import pytest
from harness import killed
from scored import Scored

from instructgpt.__main__ import main as run
from instructgpt.evaluation import scoring
from instructgpt.evaluation.judges import Answer
from instructgpt.evaluation.scoring import Scorer
from instructgpt.types import Prompt


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Two caches of users, of which one is taken at a time."""

    def take(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return tmp_path / name / "instructgpt" / "scores"

    return take


def test_a_killed_evaluation_goes_on_with_its_scores(
    own, reward_model, tmp_path, monkeypatch, caches
):
    """The same bytes come out, and nothing is scored twice; half a line counts as none."""
    monkeypatch.setattr(scoring, "TOGETHER", 2)
    args = [f"--answers={json.dumps(own)}", "--baseline=yours", f"--reward_model={reward_model}"]
    scored = Scored(monkeypatch)
    caches("one")
    assert run(["evaluate", *args, "--output=whole"]) == 0
    assert scored.calls == [2, 2, 1]  # what both say is scored last: it is not compared
    scored.calls, scored.most = [], 1
    folder = caches("other")
    killed(lambda: run(["evaluate", *args, "--output=out"]))
    scored.most = 99
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert not (out / "results.json").exists()
    (kept,) = folder.iterdir()
    with kept.open("a") as lines:
        lines.write('["a0')
    assert run(["evaluate", *args, "--output=out"]) == 0
    assert scored.calls == [2, 1]
    assert (out / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    assert len([line for line in kept.read_text().splitlines() if line.endswith("]")]) == 5


def test_what_another_command_has_scored_is_not_scored_again(
    own, reward_model, tmp_path, monkeypatch, caches, capsys
):
    """Of the same weights alone: another baseline asks nothing, another model everything."""
    folder, scored = caches("one"), Scored(monkeypatch)
    args = ["evaluate", f"--answers={json.dumps(own)}", f"--reward_model={reward_model}"]
    assert run([*args, "--baseline=yours", "--output=first"]) == 0
    assert sum(scored.calls) == 5
    said = capsys.readouterr()
    assert "not scored again" not in said.out + said.err
    scored.calls.clear()
    assert run([*args, "--baseline=mine", "--output=second"]) == 0
    assert scored.calls == []
    said = capsys.readouterr()
    assert f"not scored again: {next(folder.iterdir())}" in said.out + said.err
    first, second = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("first", "second")
    )
    assert first["scores"] == second["scores"]
    (kept,) = folder.iterdir()
    assert not [text for text in ("Q", "good") if text in kept.read_text().split("\n", 1)[1]]
    other = tmp_path / "second/results.json"
    kept.unlink()
    assert run([*args, "--baseline=mine", "--output=third"]) == 0
    assert sum(scored.calls) == 5
    assert (tmp_path / "third/results.json").read_bytes() == other.read_bytes()


def test_conversations_with_one_text_are_scored_apart(reward_model, caches):
    """What is named alike in a file may have been asked after other turns."""
    caches("one")
    asked = {"role": "user", "content": "Q"}
    before = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
    prompts = [Prompt("Q", turns, "", {}) for turns in ([asked], [*before, asked])]
    together = Scorer(reward_model)([answer_to(prompt) for prompt in prompts])
    caches("other")
    alone = [Scorer(reward_model)([answer_to(prompt)])[0] for prompt in prompts]
    assert together == pytest.approx(alone, abs=1e-5)
    assert abs(alone[0] - alone[1]) > 1e-3


def answer_to(prompt):
    return Answer(prompt, "good", True, {}, {}, math.nan)
