"""``evaluate`` with judges that took no part: another reward model, a model behind an endpoint."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from harness import killed
from rows import write_rows
from stub_judge import serving

from instructgpt.__main__ import main as run
from instructgpt.evaluation import chat_client, endpoint_judge

LONG, SHORT = [f"a longer answer {i}" for i in range(6)], [f"b {i}" for i in range(6)]


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """Answers of two models, as the option."""
    monkeypatch.chdir(tmp_path)
    paths = {}
    for name, texts in {"sft": SHORT, "dpo": LONG}.items():
        rows = [{"id": f"{i}", "prompt": f"Q{i}", "responses": [t]} for i, t in enumerate(texts)]
        paths[name] = write_rows(tmp_path / f"{name}.jsonl", rows)
    return f"--answers={json.dumps(paths)}"


def results(folder):
    return json.loads((folder / "results.json").read_text())


def prefers_longer(text, _):
    first, second = endpoint_texts(text)
    return "A" if len(first) > len(second) else "B"


def endpoint_texts(text):
    parts = text.split("\n#")
    return [part.split("\n", 1)[1] for part in parts if " answer " in part.split("\n", 1)[0]]


# -- a second reward model


def test_a_second_reward_model_judges_beside_the_first(
    answers, make_reward_model, tmp_path, capsys
):
    first, second = make_reward_model(3), make_reward_model(4)
    for folder, rows in ((first, 567), (second, 600)):
        file = Path(folder, "instructgpt.json")
        facts = json.loads(file.read_text())
        facts |= {"parent": f"{tmp_path}/runs/sft/export"}
        facts["data"] = [{"use": "training", "name": "hh.jsonl", "hub": False, "rows": rows}]
        file.write_text(json.dumps(facts))
    args = [answers, f"--reward_model={first}", f"--judge_model={second}"]
    assert run(["evaluate", *args, "--output=out"]) == 0
    found = results(tmp_path / "out")
    assert list(found["judges"]) == ["judge_model", "reward_model"]  # who took no part first
    rates = {row["judge"]: row for row in found["win_rates"]}
    assert rates["judge_model"]["value"] != rates["reward_model"]["value"]
    assert "showing_orders" not in found  # scores know of no order
    judge = found["reward_models"]["judge_model"]
    assert judge["started_from"] == "sft/export"
    assert judge["data"] == ["hh.jsonl, 600 rows"]
    assert judge["shares"] == [
        "both started from sft/export",
        "both were trained on hh.jsonl (600 rows and 567 rows)",
    ]
    said = capsys.readouterr()
    assert "--judge_model and --reward_model: both were trained on hh.jsonl" in said.err
    assert "preferred to sft by a second reward model's higher score" in said.out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "both were trained on hh.jsonl" in page
    assert str(tmp_path) not in json.dumps(found)
    assert not list((tmp_path / "out").glob("*.partial*"))


def test_a_judge_of_which_nothing_is_known(answers, make_reward_model, tmp_path):
    first, second = make_reward_model(3), make_reward_model(4)
    os.remove(f"{second}/instructgpt.json")
    args = [answers, f"--reward_model={first}", f"--judge_model={second}"]
    assert run(["evaluate", *args, "--output=out"]) == 0
    (line,) = results(tmp_path / "out")["reward_models"]["judge_model"]["shares"]
    assert line.startswith("nothing is known of how the judge was trained")


def test_the_reward_model_is_no_second_judge(answers, make_reward_model, tmp_path, capsys):
    first, same = make_reward_model(3), make_reward_model(3)
    args = [answers, f"--reward_model={first}", f"--judge_model={same}"]
    assert run(["evaluate", *args, "--output=out"]) == 2
    assert "--judge_model must be another model than --reward_model" in capsys.readouterr().err
    assert run(["evaluate", answers, f"--judge_model={same}", "--output=alone"]) == 0
    assert list(results(tmp_path / "alone")["judges"]) == ["judge_model"]


# -- a model behind an endpoint


def at(stub, *more):
    return [f"--judge_endpoint.url={stub.url}", "--judge_endpoint.model=big", *more]


def test_an_endpoint_judges_and_its_key_is_nowhere(answers, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    out = tmp_path / "out"
    with serving(prefers_longer) as stub:
        args = ["evaluate", answers, *at(stub, "--judge_endpoint.key_from=JUDGE_KEY")]
        assert run([*args, "--output=out"]) == 0
        assert len(stub.asked) == 12  # six pairs in both orders
        whole = (out / "results.json").read_bytes()
        assert run([*args, "--output=out"]) == 0
        assert len(stub.asked) == 12  # all of it is in judgements.jsonl
    assert (out / "results.json").read_bytes() == whole
    assert stub.headers[0]["Authorization"] == "Bearer sk-very-secret"
    found = results(out)
    assert found["judges"] == {"endpoint": f"big at {stub.url.removeprefix('http://')}"}
    (row,), (order,) = found["win_rates"], found["showing_orders"]
    assert (row["value"], row["n"], row["order_consistency"]) == (1.0, 6, 1.0)
    assert (order["first_preferred"]["value"], order["flips"]["value"]) == (0.5, 0)
    assert len((out / "judgements.jsonl").read_text().splitlines()) == 12
    every = b"".join(p.read_bytes() for p in out.rglob("*") if p.is_file())
    assert b"sk-very-secret" not in every
    said = capsys.readouterr()
    assert "sk-very-secret" not in "".join(said)
    (first,) = {line for line in said.out.splitlines() if "shown first" in line}
    assert first.split()[4] == "0.500"
    assert first.endswith("n = 6  another winner in the other order: 0.000")
    assert "prefers what is shown first" in (out / "report.html").read_text()


def test_a_killed_evaluation_asks_only_what_is_not_known(answers, tmp_path, monkeypatch):
    with serving(prefers_longer) as stub:
        args = ["evaluate", answers, *at(stub, "--judge_endpoint.at_once=1")]
        assert run([*args, "--output=whole"]) == 0
        assert len(stub.asked) == 12

        kept = []

        def keep(self, found, real=endpoint_judge.EndpointJudge._keep):
            real(self, found)
            kept.append(found)
            if len(kept) == 5:
                os.kill(os.getpid(), signal.SIGKILL)

        with monkeypatch.context() as patch:
            patch.setattr(endpoint_judge.EndpointJudge, "_keep", keep)
            killed(lambda: run([*args, "--output=out"]))
        assert not (tmp_path / "out" / "results.json").exists()
        before = len(stub.asked)
        assert run([*args, "--output=out"]) == 0
        assert len(stub.asked) - before == 12 - 5
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert (out / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    assert not list(out.glob("*.partial*"))


def test_an_interrupt_ends_it_at_once_and_keeps_what_was_said(answers, tmp_path, capsys):
    def slow(text, _):
        if "longer answer 3" in text:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(20)
        return "A"

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with serving(slow) as stub:
            began = time.monotonic()
            args = [answers, *at(stub, "--judge_endpoint.at_once=1"), "--output=out"]
            assert run(["evaluate", *args]) == 130
            assert time.monotonic() - began < 15
    finally:
        signal.signal(signal.SIGINT, before)
    said = capsys.readouterr().err
    assert "3 rows are in" in said
    assert "the same command goes on there" in said
    partial = tmp_path / "out" / "judgements.jsonl.partial"
    assert len(partial.read_text().splitlines()) == 3


def test_who_is_not_there_ends_in_one_line(answers, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(chat_client, "PAUSE", 0.01)
    args = ["--judge_endpoint.url=http://127.0.0.1:9/v1", "--judge_endpoint.model=big"]
    assert run(["evaluate", answers, *args, "--output=out"]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "error" in one]
    assert "judge big at 127.0.0.1:9/v1 did not answer 5 times in a row, no answer after" in line
    assert not (tmp_path / "out" / "results.json").exists()
