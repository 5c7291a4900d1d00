"""What runs have left behind, of PPO and of others."""

import json
import math

import pytest
from evaluation_answers import prompt_of

from instructgpt.evaluation.answers import Grader
from instructgpt.evaluation.history import checkpoint_curve
from instructgpt.evaluation.judges import Answer
from instructgpt.types import UserError

PROMPTS = {text: prompt_of(text) for text in ("p", "q")}


def grade(where, prompt, responses, finished):
    """Longer is better."""
    return [
        Answer(prompt, text, ended, {}, {}, float(len(text)))
        for text, ended in zip(responses, finished, strict=True)
    ]


def length_and_one(answers):
    """A reward model."""
    return [len(one.text) + 1.0 for one in answers]


@pytest.fixture
def run(tmp_path):
    """A folder of a run, from rows of its samples and what its validations logged."""

    def make(rows, validations):
        lines = (json.dumps({"finished": True} | row) + "\n" for row in rows)
        (tmp_path / "samples.jsonl").write_text("".join(lines))
        (tmp_path / "metrics.json").write_text(json.dumps({"validations": validations}))
        return str(tmp_path)

    return make


def samples(**more):
    """Two validations of two prompts."""
    return [
        {"step": step, "prompt": prompt, "response": "a" * step} | more
        for step in (1, 3)
        for prompt in PROMPTS
    ]


def test_a_run_with_kl_and_score_beside_its_samples(run):
    rows = samples(kind="sampled", kl=0.5, score=2.0)
    rows += samples(kind="greedy", kl=None, score=9.0)
    folder = run(rows, [{"step": 1, "val/kl": 7.0}, {"step": 3, "val/kl": 7.0}])
    first, last = checkpoint_curve(
        folder, PROMPTS, Grader(grade, "", lambda prompt: True), length_and_one, 0
    )
    assert (first.step, first.kl, first.score.value, first.utility.value) == (1, 0.5, 2.0, 1.0)
    assert (last.step, last.utility.value, last.utility.n) == (3, 3.0, 2)


def test_a_run_whose_kl_stands_in_its_validations(run):
    """As a run without a reward model, such as DPO: the evaluation's scores its samples."""
    folder = run(samples(score=None), [{"step": 1, "val/kl": 0.25}, {"step": 3, "val/kl": 1.5}])
    curve = checkpoint_curve(
        folder, PROMPTS, Grader(grade, "", lambda prompt: True), length_and_one, 0
    )
    assert [(one.step, one.kl, one.score.value) for one in curve] == [(1, 0.25, 2.0), (3, 1.5, 4.0)]


def test_what_nobody_knows_is_left_out(run):
    folder = run(samples(score=None), [{"step": 1, "val/loss": 1.0}, {"step": 3}])
    for point in checkpoint_curve(folder, PROMPTS, None, None, 0):
        assert math.isnan(point.kl)
        assert (point.score, point.utility) == (None, None)


def test_answers_to_other_prompts_are_refused(run):
    folder = run(samples(), [])
    with pytest.raises(UserError, match=r"samples.jsonl:2: \"prompt\" must be one of"):
        checkpoint_curve(folder, {"p": PROMPTS["p"]}, None, None, 0)
