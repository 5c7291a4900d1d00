"""What a fit says of a reward model beside the longer response and a bag of words."""

import json
import math
from itertools import permutations

import pytest
from descent import sgd
from harness import run_processes
from rows import read_rows, write_rows

from instructgpt.algorithms.schedule import Constant
from instructgpt.callbacks.checkpoint import StageCheckpoint
from instructgpt.callbacks.export import ExportArtefact
from instructgpt.evaluation import baselines
from instructgpt.evaluation.bag_of_words import RankedTexts, fit_words, read_bag
from instructgpt.modules.reward import RewardModule


@pytest.fixture
def sets(files, tmp_path):
    """Rows to train on and to measure on, of two sets, one of them with a prompt twice."""
    rows = read_rows(files["comparisons"])
    held = [{**row, "source": "odd" if i % 3 else "even"} for i, row in enumerate(rows[:14])]
    held.append({**held[1], "ranking": held[1]["ranking"][::-1]})
    return [write_rows(tmp_path / f"{n}.jsonl", r) for n, r in (("a", rows[14:]), ("b", held))]


@pytest.fixture
def train(fit, comparison_data, reward_artefact, sets, tmp_path):
    def run(
        *callbacks,
        optimizer=sgd,
        output=tmp_path / "run",
        validation=sets[1],
        streaming=False,
        **options,
    ):
        module = RewardModule(init_from=reward_artefact, optimizer=optimizer, schedule=Constant())
        data = comparison_data(batch_size=4, validation=validation, streaming=streaming)
        data.train_names = sets[0]
        export = ExportArtefact({}, baselines.beside)
        defaults = {"default_root_dir": output, "limit_val_batches": 1.0, "max_epochs": 1}
        fit(module, data, callbacks=[*callbacks, export], **{**defaults, **options})
        about = json.loads((output / "export" / "instructgpt.json").read_text())
        return json.loads((output / "metrics.json").read_text()), about["metrics"], data

    return run


def half(better, worse):
    return 1.0 if better > worse else 0.5 if better == worse else 0.0


def test_counted_by_hand(train, tmp_path, capsys):
    metrics, artefact, data = train()
    found, shown = metrics["baselines"], capsys.readouterr().out

    def texts(row):
        tokens = [response.tolist() for response in row.responses]
        return data.tokenizer.batch_decode(tokens, skip_special_tokens=True)

    kept = read_bag(str(tmp_path / "run" / "export"))
    bag = fit_words([RankedTexts(texts(row), row.ranking) for row in data.train_rows])
    assert kept == bag
    longer, bagged, prompts = [], [], set()
    for row in data.validation_rows:
        responses = list(zip(row.ranking, row.responses, map(bag.score, texts(row)), strict=True))
        for (rank, tokens, score), (other, others, less) in permutations(responses, 2):
            if rank < other:
                longer.append(half(len(tokens), len(others)))
                bagged.append(half(score, less))
                prompts.add(tuple(row.prompt.tolist()))
    whole = found["all"]
    assert (whole["pairs"], whole["prompts"]) == (len(longer), len(prompts))
    assert whole["longer_wins"][0] == pytest.approx(sum(longer) / len(longer))
    assert whole["bag_of_words"][0] == pytest.approx(sum(bagged) / len(bagged))
    for measure in ("reward_model", "longer_wins", "bag_of_words"):
        value, low, high = whole[measure]
        assert low < value < high
        assert sum(
            found["by_source"][s][measure][0] * found["by_source"][s]["pairs"]
            for s in ("odd", "even")
        ) == pytest.approx(value * whole["pairs"])
    exported = metrics["exported"]
    assert exported["val/accuracy"] == pytest.approx(whole["reward_model"][0])
    assert exported["val/accuracy_longer_wins"] == pytest.approx(whole["longer_wins"][0])
    assert exported["val/accuracy_bag_of_words"] == whole["bag_of_words"][0]
    assert exported["val/calibration_error"] == pytest.approx(whole["calibration_error"])
    for name, measure in (("", "reward_model"), ("_bag_of_words", "bag_of_words")):
        low, high, n = exported["intervals"][f"val/accuracy{name}"]
        assert [low, high] == pytest.approx(whole[measure][1:])
        assert n == whole["prompts"]
    assert artefact == exported
    table = [
        line.split() for line in shown.splitlines() if f"{whole['bag_of_words'][0]:.3f} [" in line
    ]
    assert [line[0] for line in table][:1] == ["all"]
    assert f"fitted on {bag.pairs} pairs of all {len(data.train_rows)} training rows" in shown
    assert "seconds: " in shown


def test_an_interval_resamples_prompts(train):
    """Four rows on one prompt are one unit: four such tell as much as four rows, not as sixteen."""
    _, _, data = train()
    row = data.validation_rows[0]
    scores = [[1.0, 0.0], [0.0, 1.0]] * 8

    def interval(same):
        rows = [
            baselines.ranked_row(
                row._replace(
                    prompt=row.prompt[:1] + (i // 4 if same else i),
                    responses=row.responses[:2],
                    ranking=(1, 2),
                ),
                baselines.np.array(scores[i // 4]),
            )
            for i in range(16)
        ]
        found = baselines.compare(rows, rows)
        return found.reward_model.high - found.reward_model.low, found.prompts

    (wide, few), (narrow, many) = interval(True), interval(False)
    assert (few, many) == (4, 16)
    assert wide > 1.5 * narrow


def test_ranks_agree(train, tmp_path):
    def at(folder, **options):
        return train(output=tmp_path / folder, max_steps=1, **options)[0]["baselines"]

    alone, ddp = at("one", accumulate_grad_batches=2), {"strategy": "ddp", "devices": 2}
    for ranked in run_processes(lambda: at("two", **ddp)):
        for name in ("pairs", "prompts", "longer_wins", "bag_of_words"):
            assert ranked["all"][name] == alone["all"][name]
        for name in ("reward_model", "calibration_error"):
            assert ranked["all"][name] == pytest.approx(alone["all"][name], abs=1e-4)


def test_scores_are_those_of_the_exported_weights(train, tmp_path):
    """The best validation was not the last; a finished run that is resumed says the same."""
    wild = {"optimizer": lambda p: sgd(p, lr=3.0), "max_epochs": 4, "enable_checkpointing": True}
    metrics, exported, _ = train(StageCheckpoint(), **wild)
    assert exported["step"] < metrics["final"]["step"]
    assert exported["val/accuracy"] != metrics["final"]["val/accuracy"]
    assert metrics["baselines"]["all"]["reward_model"][0] == pytest.approx(exported["val/accuracy"])
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    again, _, _ = train(StageCheckpoint(), ckpt_path=last, **wild)
    for found in (again, metrics):
        assert found["baselines"].pop("seconds") >= 0
    assert again["baselines"] == metrics["baselines"]


@pytest.mark.parametrize("options", [{"validation": None}, {"limit_val_batches": 0}])
def test_without_validation_nothing_is_said(train, options):
    metrics, exported, _ = train(**options)
    assert "baselines" not in metrics
    assert not [name for name in exported if "bag_of_words" in name]


def test_of_many_rows_a_sample_is_said(train, monkeypatch, capsys):
    monkeypatch.setattr(baselines, "MOST_ROWS", 9)
    monkeypatch.setattr(baselines, "MOST_RESPONSES", 12)
    metrics, _, data = train()
    out = capsys.readouterr().out
    assert "on a sample of 9 of 15 validation rows" in out
    assert f"of {len(data.train_rows)} training rows" in out
    assert "pairs of a sample of " in out
    assert metrics["baselines"]["all"]["prompts"] <= 9
    assert math.isfinite(metrics["baselines"]["all"]["bag_of_words"][0])


def test_fewer_rows_than_there_are_have_been_read(train, capsys):
    _, _, data = train(max_steps=1, val_check_interval=1)
    every = len(data.train_rows)
    assert f"all {every} training rows, of which the model had read 4" in capsys.readouterr().out


def test_of_a_stream_the_first_rows_are_taken(train, capsys):
    metrics, _, data = train(streaming=True, max_steps=2, max_epochs=-1, val_check_interval=1)
    said = f"pairs of the first {len(data.train_rows)} training rows of the stream\n"
    assert said in capsys.readouterr().out
    assert metrics["baselines"]["all"]["pairs"] > 0
