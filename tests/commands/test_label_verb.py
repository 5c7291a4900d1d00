"""``label`` by simulated labelers and by people."""

import json
import os
import subprocess
import sys

import pytest
from harness import killed
from refusals import parse_comparison
from rows import read_rows, write_rows
from scored import Scored

from instructgpt.__main__ import main as run
from instructgpt.data.files import Item
from instructgpt.evaluation import scoring
from instructgpt.evaluation.answers import AnswersRow, answers_of
from instructgpt.evaluation.scoring import Scorer
from instructgpt.feedback.panels import panel_from_json
from instructgpt.pipeline.folder import asks_people

SETS = {"general": 40}
GROUPS = {"training": 6, "held_out": 5, "shifted": 5}


@pytest.fixture
def label(make_answers, tmp_path):
    samples = make_answers("samples", SETS, responses=4)
    held = make_answers("held", {"closed": 10, "general": 30}, responses=3)

    def call(*more, output="label"):
        args = ["--samples", samples, "--validation", held, "--output", str(tmp_path / output)]
        assert run(["label", *args, *more]) == 0
        return tmp_path / output

    return call


def test_what_is_written(label, capsys):
    folder = label()
    rows = read_rows(folder / "comparisons.jsonl")
    assert len(rows) == 40
    for row in rows + read_rows(folder / "validation.jsonl"):
        parse_comparison(Item("here:1", "here", row))
        rank = dict(zip(row["responses"], row["ranking"], strict=True))
        assert [rank[text] for text in row["responses"]] == row["ranking"]  # equal texts tie
        assert row["meta"]["category"] == row["category"]
    people = [row["labeler"] for row in rows]
    assert set(people) == {f"training_{i}" for i in range(1, 7)}
    assert max(map(people.count, people)) - min(map(people.count, people)) <= 1
    assert "training: 6 labelers agree in 72.6% of" in capsys.readouterr().out


def test_folds_leave_labelers_out(label):
    folder = label()
    about = json.loads((folder / "panels.json").read_text())
    rows = read_rows(folder / "comparisons.jsonl")
    everyone = [name for fold in about["folds"] for name in fold["labelers"]]
    assert sorted(everyone) == sorted({row["labeler"] for row in rows})
    for i, fold in enumerate(about["folds"]):
        kept = read_rows(folder / f"fold_{i}" / "comparisons.jsonl")
        assert kept == [row for row in rows if row["labeler"] not in fold["labelers"]]


def test_everyone_ranks_the_validation_prompts(label):
    folder = label()
    rows = read_rows(folder / "validation.jsonl")
    for group, size in GROUPS.items():
        own = [row for row in rows if row["source"] == group]
        assert len(own) == 40 * size
        assert len({row["labeler"] for row in own}) == size
    once = read_rows(folder / "validation_fit.jsonl")
    assert len(once) == 40
    assert all(row in rows for row in once)  # the same choice wherever it is written


def test_panels_agree_as_they_should(label):
    panels = json.loads((label() / "panels.json").read_text())["panels"]
    assert panels["training"]["agreement"]["value"] == pytest.approx(0.726, abs=0.001)
    assert panels["held_out"]["agreement"]["value"] == pytest.approx(0.773, abs=0.001)
    assert panels["shifted"]["agreement"]["target"] is None
    for name, size in GROUPS.items():
        panel = panel_from_json(panels[name], "here")
        assert len(panel.labelers) == len(panels[name]["agreement"]["matrix"]) == size
        assert panels[name]["agreement"]["value"] < panels[name]["ceiling"] < 1

    def loudness(name):  # geometric mean, which the draw of the noises leaves at 1
        labelers = panel_from_json(panels[name], "here").labelers
        product = 1.0
        for one in labelers:
            product *= one.noise
        return product ** (1 / len(labelers))

    assert loudness("shifted") == pytest.approx(loudness("training"))
    assert loudness("held_out") < loudness("training")


def test_same_bytes_twice_whatever_the_hash_seed(label, tmp_path):
    one = label(output="one")
    command = [sys.executable, "-m", "instructgpt", "label", "--output", str(tmp_path / "two")]
    command += ["--samples", str(tmp_path / "samples.jsonl")]
    command += ["--validation", str(tmp_path / "held.jsonl")]
    subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "7"}, check=True)
    for path in (p for p in one.rglob("*") if p.is_file()):
        assert (tmp_path / "two" / path.relative_to(one)).read_bytes() == path.read_bytes()
    other = label("--seed=1", output="three")
    assert (other / "comparisons.jsonl").read_bytes() != (one / "comparisons.jsonl").read_bytes()


def test_a_choice_does_not_depend_on_other_rows(label, tmp_path):
    whole = {row["id"]: row for row in read_rows(label() / "validation_fit.jsonl")}
    lines = (tmp_path / "held.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "held.jsonl").write_text("".join(reversed(lines)))
    turned = {row["id"]: row for row in read_rows(label(output="turned") / "validation_fit.jsonl")}
    assert {name: row["labeler"] for name, row in turned.items()} == {
        name: row["labeler"] for name, row in whole.items()
    }


def test_empty_responses_are_left_out(make_answers, tmp_path):
    path = tmp_path / "samples.jsonl"
    make_answers("samples", SETS, responses=4)
    rows = read_rows(path)
    rows[0]["responses"][1] = ""
    rows[1]["responses"][1:] = ["", " ", "\n"]
    write_rows(path, rows)
    assert run(["label", "--samples", str(path), "--output", str(tmp_path / "out")]) == 0
    written = {row["id"]: row for row in read_rows(tmp_path / "out" / "comparisons.jsonl")}
    assert len(written[rows[0]["id"]]["responses"]) == 3
    assert rows[1]["id"] not in written


# -- people


def test_people_are_waited_for(make_answers, tmp_path, capsys):
    samples = make_answers("samples", {"general": 5}, responses=3)
    args = ["label", "--samples", samples, "--by", "people", "--output", str(tmp_path / "out")]
    assert run(args) == 3
    message = capsys.readouterr().err
    assert message.startswith("instructgpt: 5 prompts wait for labels")
    assert str(tmp_path / "out" / "to_label.jsonl") in message
    rows = read_rows(tmp_path / "out" / "to_label.jsonl")
    assert "ranking" not in rows[0]

    answer = tmp_path / "out" / "comparisons.jsonl"
    rows[0] |= {"ranking": [1, 2, 2]}
    write_rows(answer, rows)
    assert run(args) == 2  # the second row has none
    assert f'{answer}:2: "ranking" is missing' in capsys.readouterr().err

    ranked = [row | {"ranking": [3, 1, 2]} for row in rows]
    write_rows(answer, ranked)
    assert run(args) == 0
    assert "5 of 5 prompts are ranked" in capsys.readouterr().out
    assert read_rows(answer) == ranked

    answer.write_text(json.dumps(ranked[0]) + "\n")
    assert run(args) == 0
    assert "1 of 5 prompts are ranked in" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["ranking", "rankings", "notes"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_what_people_write_into_the_question_is_kept(make_answers, tmp_path, capsys, key, encoding):
    samples = make_answers("samples", {"general": 3}, responses=3)
    args = ["label", "--samples", samples, "--by", "people", "--output", str(tmp_path / "out")]
    assert run(args) == 3
    assert run(args) == 3, "as it was written, it is no work of theirs"
    assert "left alone" not in capsys.readouterr().err
    question, answer = tmp_path / "out" / "to_label.jsonl", tmp_path / "out" / "comparisons.jsonl"
    ranked = [row | {key: [3, 1, 2]} for row in read_rows(question)]
    written = "".join(json.dumps(row) + "\n" for row in ranked).encode(encoding)
    question.write_bytes(written)
    assert run(args) == 3
    message = capsys.readouterr().err
    assert f"({question} is not as it was written: it is left alone)" in message
    assert '"ranking"' in message
    assert f"save the rows as {answer}" in message
    assert question.read_bytes() == written
    question.rename(answer)
    assert asks_people(tmp_path / "out"), "killed now, the pipeline must not clear it"
    assert run(args) == (0 if (key, encoding) == ("ranking", "utf-8") else 2)


def test_simulated_labelers_do_not_write_where_people_do(make_answers, tmp_path, capsys):
    samples = make_answers("samples", {"general": 8}, responses=3)
    args = ["label", "--samples", samples, "--output", str(tmp_path / "out")]
    assert run([*args, "--by", "people"]) == 3
    (tmp_path / "out" / "comparisons.jsonl").write_text("by hand")
    assert run(args) == 2
    assert "--output must not be where people were asked to rank" in capsys.readouterr().err
    assert (tmp_path / "out" / "comparisons.jsonl").read_text() == "by hand"


def test_rankings_of_other_responses_are_told(make_answers, tmp_path, capsys):
    old = make_answers("old", {"general": 8}, responses=4)
    new = make_answers("new", {"general": 8}, responses=4)
    args = ["label", "--by", "people", "--output", str(tmp_path / "out"), "--samples"]
    question, answer = tmp_path / "out" / "to_label.jsonl", tmp_path / "out" / "comparisons.jsonl"
    assert run([*args, old]) == 3
    first = read_rows(question)
    assert run([*args, new]) == 3, "nobody has touched the question: the new one takes its place"
    assert read_rows(question) != first
    ranked = [row | {"ranking": [*range(1, 1 + len(row["responses"]))]} for row in first]
    write_rows(answer, ranked)
    capsys.readouterr()
    assert run([*args, new]) == 2
    assert "got rankings of others only" in capsys.readouterr().err
    ranked.append(read_rows(question)[0])
    ranked[-1]["ranking"] = [*range(1, 1 + len(ranked[-1]["responses"]))]
    write_rows(answer, ranked)
    assert run([*args, new]) == 0
    said = capsys.readouterr().out
    assert f"1 of {len(read_rows(question))} prompts are ranked" in said
    assert f"and {len(first)} others" in said


def test_two_groups_can_want_opposite_things(label):
    """Of two responses that differ in detail alone, one group prefers the other's worse one."""
    folder = label("--opposing", "true")
    rows = read_rows(folder / "comparisons.jsonl")
    assert {row["source"] for row in rows} == {"brief", "detailed"}
    assert all(row["labeler"].startswith(row["source"]) for row in rows)
    about = json.loads((folder / "panels.json").read_text())["panels"]["training"]
    panel = panel_from_json(about, "panels.json")
    long, short = ({**dict.fromkeys(panel.labelers[0].weights, 0.5), "detail": d} for d in (1, 0))
    wins = {one.group: [] for one in panel.labelers}
    for one in panel.labelers:
        wins[one.group].append(one.prefers(long, short).win)
    assert sum(wins["brief"]) / 6 < 0.4 < 0.6 < sum(wins["detailed"]) / 6


def test_people_need_no_world(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({"prompt": "Hi", "responses": ["a", "b"]}) + "\n")
    assert run(["label", "--samples", str(path), "--by=people", "--output", str(tmp_path)]) == 3


def test_a_reward_model_ranks(make_answers, reward_model, tmp_path, capsys):
    """The ratings are its scores, the best response is the one that it scores highest."""
    samples, output = make_answers("samples", SETS, responses=4), tmp_path / "out"
    args = ["label", "--by=reward", f"--reward_model={reward_model}", "--samples", samples]
    assert run([*args, f"--output={output}"]) == 0
    assert f"40 prompts are rated in {output / 'comparisons.jsonl'}" in capsys.readouterr().out
    assert sorted(path.name for path in output.iterdir()) == ["best.jsonl", "comparisons.jsonl"]
    asked, best = read_rows(samples), read_rows(output / "best.jsonl")
    scorer = Scorer(reward_model)
    for sampled, row, one in zip(asked, read_rows(output / "comparisons.jsonl"), best, strict=True):
        parsed = parse_comparison(Item("here:1", "here", row)).row
        answers = AnswersRow("here", parsed.prompt, row["responses"], sampled["finished"])
        assert row["responses"] == sampled["responses"]
        scores = scorer(answers_of(answers, parsed.prompt, None))
        assert row["ratings"] == pytest.approx(scores, abs=1e-5)
        place = max(range(4), key=row["ratings"].__getitem__)
        assert one["responses"] == [sampled["responses"][place]]
        assert one["finished"] == [sampled["finished"][place]]
        assert one["id"] == sampled["id"]


def test_a_killed_rating_goes_on_with_its_scores(make_answers, reward_model, tmp_path, monkeypatch):
    """The same bytes come out, and nothing is scored twice."""
    samples, scored = make_answers("samples", SETS, responses=2), Scored(monkeypatch)
    args = ["label", "--by=reward", f"--reward_model={reward_model}", "--samples", samples]
    monkeypatch.setattr(scoring, "TOGETHER", 30)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one"))
    assert run([*args, f"--output={tmp_path / 'whole'}"]) == 0
    assert scored.calls == [30, 30, 16]  # what was said twice is scored once
    scored.calls, scored.most = [], 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    killed(lambda: run([*args, f"--output={tmp_path / 'out'}"]))
    assert not (tmp_path / "out" / "comparisons.jsonl").exists()
    scored.most = 99
    assert run([*args, f"--output={tmp_path / 'out'}"]) == 0
    assert scored.calls == [30, 16]
    for name in ("comparisons.jsonl", "best.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


# -- mistakes


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"meta": None}, 'samples.jsonl:2: "meta" is missing, which the world\'s grader needs'),
        ({"meta": {"category": "poem"}}, "samples.jsonl:2: meta: category must be one of"),
        ({"meta": {"category": "chat"}}, 'samples.jsonl:2: "meta" must be what the world has'),
        (
            {"meta": {"category": "extract", "answers": []}},
            'samples.jsonl:2: "meta" must be what the world has written (ZeroDivisionError: ',
        ),
        (
            {"responses": ["only one"]},
            'samples.jsonl:2: "responses" must hold at least 2 responses',
        ),
        ({"responses": "a"}, 'samples.jsonl:2: "responses" must be a list of strings'),
        ({"finished": [True]}, 'samples.jsonl:2: "finished" must be a list of true and false'),
        ({"prompt": ""}, 'samples.jsonl:2: "prompt" must not be empty'),
    ],
)
def test_a_wrong_row_is_one_line(make_answers, tmp_path, capsys, row, message):
    path = tmp_path / "samples.jsonl"
    make_answers("samples", SETS, responses=2)
    rows = read_rows(path)
    rows[1] |= row
    if row.get("meta", "") is None:
        del rows[1]["meta"]
    write_rows(path, rows)
    assert run(["label", "--samples", str(path), "--output", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labelers=1"], "--labelers must be >= 2, got 1"),
        (["--held_out_labelers=0"], "--held_out_labelers must be >= 2, got 0"),
        (["--folds=1"], "--folds must be 0, or from 2 to --labelers (6), got 1"),
        (["--folds=7"], "--folds must be 0, or from 2 to --labelers (6), got 7"),
        (["--tie=-1"], "--tie must be >= 0, got -1.0"),
        (["--agreement=0.3"], "agreement of the training labelers must be between"),
        (["--by=people", "--validation=x.jsonl"], "--validation is for simulated labelers"),
        (["--by=reward"], "--reward_model must be given with --by reward, got none"),
        (
            ["--by=reward", "--reward_model=x", "--tie=1"],
            "--tie must be left out with --by reward, got 1.0",
        ),
        (["--reward_model=x"], "--reward_model must be left out with --by simulated, got x"),
        (["--samples=none.jsonl"], "none.jsonl: no such file"),
    ],
)
def test_a_wrong_option_is_one_line(make_answers, tmp_path, capsys, options, message):
    samples = make_answers("samples", SETS, responses=2)
    assert run(["label", "--samples", samples, "--output", str(tmp_path / "out"), *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_rankings_of_responses_that_repeat_their_prompt_are_what_was_asked(tmp_path, capsys):
    prompt = "Tell me what the pig says."
    row = {"prompt": prompt, "responses": [f"{prompt} It says oink.", f"{prompt} It says moo."]}
    samples, output = tmp_path / "samples.jsonl", tmp_path / "out"
    samples.write_text(json.dumps(row))
    args = ["label", "--samples", str(samples), "--by", "people", "--output", str(output)]
    assert run(args) == 3
    ranked = [{**asked, "ranking": [1, 2]} for asked in read_rows(output / "to_label.jsonl")]
    (output / "comparisons.jsonl").write_text("".join(map(json.dumps, ranked)))
    assert run(args) == 0
    assert "1 of 1 prompts are ranked" in capsys.readouterr().out


def test_people_have_no_options_of_simulated_labelers(tmp_path, capsys):
    args = ["label", "--samples", "nowhere", "--by", "people", "--output", str(tmp_path / "out")]
    assert run([*args, "--agreement=0.9"]) == 2
    assert "--agreement must be left out with --by people, got 0.9" in capsys.readouterr().err
