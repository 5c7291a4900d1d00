"""``evaluate`` goes on where it was killed."""

import json

from harness import killed
from scored import Scored

from instructgpt.__main__ import main as run
from instructgpt.evaluation import scoring


def test_a_killed_evaluation_goes_on_with_its_scores(own, reward_model, tmp_path, monkeypatch):
    """The same bytes come out, and nothing is scored twice; half a note counts as none."""
    monkeypatch.setattr(scoring, "TOGETHER", 2)
    args = [f"--answers={json.dumps(own)}", "--baseline=yours", f"--reward_model={reward_model}"]
    scored = Scored(monkeypatch)
    assert run(["evaluate", *args, "--output=whole"]) == 0
    assert scored.calls == [2, 2, 1]  # what both say is scored last: it is not compared
    scored.calls, scored.most = [], 1
    killed(lambda: run(["evaluate", *args, "--output=out"]))
    scored.most = 99
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert not (out / "results.json").exists()
    with (out / "scores.jsonl.partial").open("a") as notes:
        notes.write('{"scores": [["Q')
    assert run(["evaluate", *args, "--output=out"]) == 0
    assert scored.calls == [2, 1]
    assert (out / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    assert not list(out.glob("*.partial*"))
