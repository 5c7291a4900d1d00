"""``evaluate`` on held-out comparisons: two reward models beside what is cheaper, set by set."""

import json
import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from rows import read_rows, write_rows

from instructgpt.__main__ import main as run
from instructgpt.data.order import text_hash
from instructgpt.data.sketch import sketch
from instructgpt.evaluation.bag_of_words import read_bag
from instructgpt.evaluation.judges import Answer
from instructgpt.evaluation.reward_accuracy import Ranked, disagreement
from instructgpt.evaluation.scoring import Scorer
from instructgpt.types import Prompt, UserError

TEXTS = ["a good one", "bad", "good good", "a long and bad one", "neither"]
RANKINGS = {"help": ([1, 2], [2, 1]), "harm": ([1, 2, 2], [3, 1, 2], [1, 1, 2])}
WEIGHTS = {"good": 1.0, "bad": -2.0}


@pytest.fixture
def comparisons(tmp_path, monkeypatch):
    """Five rankings of two sets."""
    monkeypatch.chdir(tmp_path)
    rankings = [(name, one) for name, some in RANKINGS.items() for one in some]
    rows = [
        {"prompt": f"Q{i}", "responses": [f"{TEXTS[(i + j) % 5]} {j}" for j in range(len(one))]}
        | {"ranking": one, "source": name}
        for i, (name, one) in enumerate(rankings)
    ]
    return write_rows(tmp_path / "held.jsonl", rows)


@pytest.fixture
def trained(make_reward_model, tmp_path):
    """A reward model of three heads with what its fit leaves: a bag of words, and its prompts."""
    folder = Path(make_reward_model(3, heads=3)).rename(tmp_path / "export")
    bag = {"weights": WEIGHTS, "pairs": 9, "rows": "all 9 training rows"}
    (tmp_path / "bag_of_words.json").write_text(json.dumps(bag))
    about = json.loads((folder / "instructgpt.json").read_text())
    keys = [text_hash(f"user: Q{i}") for i in (3, 4, 5)]
    one = {"use": "training", "name": "x.jsonl", "hub": False, "rows": 3}
    about["data"] = [{**one, "prompts": sketch(keys).plain}]
    (folder / "instructgpt.json").write_text(json.dumps(about))
    return str(folder)


def half(better, worse):
    return 1.0 if better > worse else 0.5 if better == worse else 0.0


def by_hand(rows, name, score):
    """The share of decided pairs of a set in which the preferred one has more of something."""
    found = [
        half(score(row, one), score(row, other))
        for row in rows
        if row["source"] == name
        for (rank, one), (less, other) in permutations(
            zip(row["ranking"], row["responses"], strict=True), 2
        )
        if rank < less
    ]
    return sum(found) / len(found), len(found)


def test_two_reward_models_without_any_answers(
    comparisons, trained, make_reward_model, tmp_path, capsys
):
    second = make_reward_model(4)
    args = [f"--comparisons={comparisons}", f"--reward_model={trained}"]
    assert run(["evaluate", *args, f"--judge_model={second}", "--output=out"]) == 0
    found, rows = json.loads(Path("out/results.json").read_text()), read_rows(comparisons)
    assert (found["models"], found["judges"]) == ([], {})
    for key, folder in (("reward_model", trained), ("judge_model", second)):
        scorer = Scorer(folder)

        def score(row, text, scorer=scorer):
            turns = [{"role": "user", "content": row["prompt"]}]
            prompt = Prompt(row["prompt"], turns, "", {})
            return scorer([answer(prompt, text)])[0]

        for name in RANKINGS:
            value, count = by_hand(rows, name, score)
            one = found[key]["accuracy"][name]
            assert (one["value"], one["n"]) == (pytest.approx(value), count)
            longer, _ = by_hand(
                rows, name, lambda row, text, scorer=scorer: len(scorer._response(answer(0, text)))
            )
            assert found[key]["longer_wins"][name]["value"] == pytest.approx(longer)
        assert set(found[key]["calibration"]) == set(RANKINGS)

    def worth(row, text):
        return sum(w * math.log(1 + text.split().count(word)) for word, w in WEIGHTS.items())

    bags = found["reward_model"]["bag_of_words"]
    for name in RANKINGS:
        assert bags[name]["value"] == pytest.approx(by_hand(rows, name, worth)[0])
    assert "bag_of_words" not in found["judge_model"]
    assert set(found["reward_model"]["disagreement"]) == set(RANKINGS)
    assert "disagreement" not in found["judge_model"]
    said = capsys.readouterr()
    assert "reward model, of decided pairs:" in said.out
    assert "2 of the 5 prompts of --comparisons are among those that --reward_model" in said.err
    page = Path("out/report.html").read_text()
    assert "The second reward model: % of decided pairs" in page
    assert "bag of words" in page


def answer(prompt, text):
    return Answer(prompt, text, True, {}, {}, float("nan"))


def test_heads_are_apart_about_margins():
    nothing = np.zeros(3)
    heads = np.array([[3.0, 1.0], [1.0, 0.0], [0.0, 5.0]])
    row = Ranked("p", "g", "", np.array([1, 2, 2]), nothing, nothing, nothing, heads)
    # Margins of the first over the others: 2 and 1, deviation 0.5; 3 and -4, deviation 3.5.
    found = disagreement({"g": [row]}, 0)["g"]
    assert (found.value, found.n) == (2.0, 2)
    shifted = row._replace(heads=heads + np.array([10.0, -3.0]))
    assert disagreement({"g": [shifted]}, 0)["g"].value == 2.0
    assert disagreement({"g": [row._replace(heads=None)]}, 0) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "evaluate must have --answers or --comparisons, got neither"),
        (["--comparisons=held.jsonl"], "--comparisons needs --reward_model or --judge_model"),
        (["--judge=x:y", "--comparisons=held.jsonl"], "--judge must be left out without --answers"),
        (["--baseline=sft"], "--baseline must be left out without --answers, got sft"),
    ],
)
def test_what_has_no_use_without_answers_is_refused(comparisons, capsys, options, message):
    assert run(["evaluate", *options, "--output=out"]) == 2
    assert message in capsys.readouterr().err


def test_a_bag_that_is_none_is_refused(trained, tmp_path):
    assert read_bag(trained).weights == WEIGHTS
    (tmp_path / "bag_of_words.json").write_text('{"weights": {"a": "b"}, "pairs": 1}')
    with pytest.raises(UserError, match=r"bag_of_words.json: must hold \"weights\" of words"):
        read_bag(trained)
    (tmp_path / "bag_of_words.json").unlink()
    assert read_bag(trained) is None
