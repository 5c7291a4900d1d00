"""Reward models with several heads in ``label`` and ``evaluate``: one score, and disagreement."""

import json
from pathlib import Path

import pytest
import torch
from refusals import parse_comparison
from rows import read_rows, write_rows

from instructgpt.__main__ import main as run
from instructgpt.data.files import Item
from instructgpt.models.load import Network, load_scalar
from instructgpt.models.template import get_template
from instructgpt.models.tokenizer import load_tokenizer
from instructgpt.types import shared_rows

ROWS = [
    {"id": f"{i}", "prompt": f"Q{i}", "responses": [f"a {i}", f"b b {i}", f"c c c {i}"]}
    for i in range(4)
]


@pytest.fixture
def samples(tmp_path, monkeypatch):
    """Three responses to each of four prompts."""
    monkeypatch.chdir(tmp_path)
    return write_rows(tmp_path / "samples.jsonl", ROWS)


@pytest.fixture
def ensemble(make_reward_model):
    return make_reward_model(3, heads=3)


def said(folder):
    """What each head says of each response, [4, 3, H]: one prompt after the other."""
    tokenizer = load_tokenizer(folder)
    model = load_scalar(folder, None, Network(), tokenizer, head="stored").eval()
    template, found = get_template("plain"), []
    for row in ROWS:
        prompt = parse_comparison(Item("x", "x", {**row, "ranking": [1, 2, 3]})).row.prompt
        tokens = template.encode_prompt(tokenizer, prompt)
        texts = [template.encode_response(tokenizer, text, True) for text in row["responses"]]
        with torch.no_grad():
            found.append(model.each(shared_rows([tokens], [texts]))[1:])
    return torch.stack(found).double()


FORMULAS = {
    "mean": lambda each: each.mean(-1),
    "min": lambda each: each.amin(-1),
    "mean_minus_std": lambda each: each.mean(-1) - 0.5 * each.std(-1, correction=0),
}


@pytest.mark.parametrize("combine", FORMULAS)
def test_label_rates_by_all_heads_and_says_how_far_they_are_apart(
    samples, ensemble, tmp_path, combine
):
    args = ["--by=reward", f"--reward_model={ensemble}", f"--heads.combine={combine}"]
    args += ["--heads.std_coef=0.5"] if combine == "mean_minus_std" else []
    assert run(["label", f"--samples={samples}", "--output=out", *args]) == 0
    each = said(ensemble)
    expected, apart = FORMULAS[combine](each), each.std(-1, correction=0)
    rows, best = (read_rows(tmp_path / "out" / f"{name}.jsonl") for name in ("comparisons", "best"))
    for row, one, scores, spread in zip(rows, best, expected, apart, strict=True):
        assert row["ratings"] == pytest.approx(scores.tolist(), abs=1e-5)
        assert row["disagreement"] == pytest.approx(spread.tolist(), abs=1e-5)
        assert one["responses"] == [row["responses"][int(scores.argmax())]]
        parse_comparison(Item("x", "x", row))  # and it can be trained on


def test_evaluate_shows_scores_and_disagreement(samples, ensemble, tmp_path, capsys):
    paths = {}
    for place, name in enumerate(("sft", "ppo")):
        rows = [{**row, "responses": [row["responses"][place]]} for row in ROWS]
        paths[name] = write_rows(tmp_path / f"{name}.jsonl", rows)
    args = [f"--answers={json.dumps(paths)}", f"--reward_model={ensemble}", "--heads.combine=min"]
    args += [f"--best_of_n={samples}"]
    assert run(["evaluate", *args, "--output=out"]) == 0
    each = said(ensemble)
    scores, apart = each.amin(-1), each.std(-1, correction=0)
    found = json.loads(Path("out/results.json").read_text())
    for place, name in enumerate(paths):
        one = found["scores"]["sampled"][name]
        assert one["score"]["value"] == pytest.approx(float(scores[:, place].mean()), abs=1e-4)
        assert one["disagreement"]["value"] == pytest.approx(
            float(apart[:, place].mean()), abs=1e-4
        )
    # The best of 2 of 3: of the three pairs two have the best, one the second best.
    order = scores.argsort(1)
    sorted_apart = apart.gather(1, order)
    expected = (2 * sorted_apart[:, 2] + sorted_apart[:, 1]).mean() / 3
    by_n = {
        row["n"]: row["disagreement"]["value"] for row in found["over_optimisation"]["best_of_n"]
    }
    assert by_n[1] == pytest.approx(float(apart.mean()), abs=1e-4)
    assert by_n[2] == pytest.approx(float(expected), abs=1e-4)
    assert "the heads are" in capsys.readouterr().out
    assert "disagreement of its heads" in Path("out/report.html").read_text()


def test_one_head_disagrees_with_nobody(samples, make_reward_model, tmp_path, capsys):
    one = make_reward_model(3)
    args = ["label", f"--samples={samples}", "--by=reward", f"--reward_model={one}"]
    assert run([*args, "--output=out"]) == 0
    assert "disagreement" not in read_rows(tmp_path / "out/comparisons.jsonl")[0]
    assert run([*args, "--output=other", "--heads.combine=min"]) == 2
    message = "--reward_model: combine must be mean for"
    assert message in capsys.readouterr().err
    two = [f"--answers.{name}={samples}" for name in "ab"]
    assert run(["evaluate", *two, "--heads.combine=min"]) == 2
    rule = "--heads must be left out without --reward_model, got Combined(combine='min'"
    assert rule in capsys.readouterr().err
