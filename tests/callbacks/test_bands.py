"""Bands beside the curves: a line when a metric leaves one, and nothing else in a healthy run."""

import json
import math

import pytest
import torch
from harness import run_processes
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from toy_stage import ToyModule, fit

from instructgpt.callbacks.bands import Band, Setting, Watch, look_at, read_bands
from instructgpt.types import UserError

WIDE = {"at": [0.0, 1.0], "low": [-1e6, -1e6], "high": [1e6, 1e6]}
VALIDATIONS = {"val/loss": WIDE}


def content(metrics=VALIDATIONS, **changes):
    """Bands of the toy: 12 steps of 2 rows, 4·4 + 4 + 4 + 1 = 25 weights."""
    setting = {"options": {}, "origins": {}, "rows": 2, "weights": 25, "steps": [12, 12]}
    return {"runs": 3, **setting, "metrics": metrics, **changes}


def banded(output, bands, *more, written="bands.json"):
    """A fit whose recipe names its bands, which lie beside it."""
    output.mkdir(exist_ok=True)
    (output / written).write_text(json.dumps(bands))
    (output / "recipe.yaml").write_text(f"bands: {written}\n")
    return fit(output, "--config", str(output / "recipe.yaml"), *more)


@pytest.fixture
def losses(monkeypatch):
    """What the validations of a run say, one after the other."""
    values = []

    def validation_epoch(self):
        self.log("val/loss", torch.tensor(values[self.global_step // 3 - 1]))

    monkeypatch.setattr(ToyModule, "validation_step", lambda *_: None)
    monkeypatch.setattr(ToyModule, "on_validation_epoch_end", validation_epoch)
    return values


def said(capfd):
    """Lines about bands."""
    lines = capfd.readouterr().out.splitlines()
    return [line for line in lines if "band" in line]


def seen(output):
    return json.loads((output / "metrics.json").read_text())["bands"]


HALVES = "--trainer.val_check_interval=0.5"  # at the steps 3, 6, 9, 12
NARROW = {"val/loss": {"at": [0.0, 1.0], "low": [0.0, 1.0], "high": [2.0, 3.0]}}


def test_leaving_and_coming_back_is_a_line_each(tmp_path, losses, capfd):
    losses += [0.5, 4.0, 4.5, 2.0]
    banded(tmp_path, content(NARROW), HALVES)
    assert said(capfd) == [
        "val/loss 4 at step 6 is above: its band is 0.5 to 2.5 in 3 runs; look at "
        "--model.optimizer.lr (too high, or too low to move), and at the example and the counts "
        "that the run printed of its rows",
        "val/loss 2 at step 12 is in its band again (1 to 3 in 3 runs)",
        "bands of 3 runs: outside were val/loss from step 6 to 12; 2 of 4 values",
    ]
    left = {"step": 6, "value": 4.0, "low": 0.5, "high": 2.5, "back": 12}
    watched = {"values": 4, "outside": 2, "left": [left]}
    assert seen(tmp_path) == {
        "runs": 3,
        "first_steps": None,
        "other_setting": [],
        "metrics": {"val/loss": watched},
    }


def test_a_run_inside_says_so_at_the_end_and_nothing_before(tmp_path, capfd):
    banded(tmp_path, content({"val/loss": WIDE, "train/loss": WIDE}))
    assert said(capfd) == ["bands of 3 runs: val/loss, train/loss stayed inside"]
    assert [one["values"] for one in seen(tmp_path)["metrics"].values()] == [2, 4]


def test_what_goes_in_and_out_all_the_time_is_no_flood(tmp_path, losses, capfd):
    losses += [9.0, 1.5] * 5
    every = ("--trainer.val_check_interval=0.5", "--trainer.max_epochs=5")
    banded(tmp_path, content(NARROW, steps=[30, 30]), *every)
    lines = said(capfd)
    assert len(lines) == 7  # three times out and in, and the end
    assert lines[-1].endswith("from step 27 to 30; 5 of 10 values")


def test_the_band_is_drawn_in_the_chart_of_its_metric(tmp_path):
    banded(tmp_path, content({"val/loss": NARROW["val/loss"], "train/loss": WIDE}))
    events = EventAccumulator(str(tmp_path)).Reload()
    (config,) = events.Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(config.tensor_proto.string_val[0]).category
    charts = {chart.title: chart.margin.series[0] for chart in category.chart}
    assert set(charts) == {"val/loss", "train/loss"}
    for name, series in charts.items():
        assert series.value == name
        steps = [[e.step for e in events.Scalars(t)] for t in (name, series.lower, series.upper)]
        assert steps[0] == steps[1] == steps[2] != []  # else TensorBoard shows an error instead
    low, high = (
        events.Scalars(tag) for tag in (charts["val/loss"].lower, charts["val/loss"].upper)
    )
    assert [round(event.value, 5) for event in low] == [0.5, 1.0]  # at the steps 6 and 12 of 12
    assert [round(event.value, 5) for event in high] == [2.5, 3.0]


def test_other_loggers_have_the_band_as_curves(tmp_path):
    banded(
        tmp_path,
        content(NARROW),
        "--trainer.logger=CSVLogger",
        f"--trainer.logger.save_dir={tmp_path}",
    )
    (file,) = tmp_path.rglob("metrics.csv")
    header, *rows = (line.split(",") for line in file.read_text().splitlines())
    column = header.index("bands/val/loss/high")
    assert [row[column] for row in rows if row[column]] == ["2.5", "3.0"]
    assert CSVLogger.__name__ in (tmp_path / "config.yaml").read_text()


def test_without_a_logger_it_is_judged_all_the_same(tmp_path, losses, capfd):
    losses += [0.5, 4.0, 4.5, 2.0]
    banded(tmp_path, content(NARROW), HALVES, "--trainer.logger=false")
    assert len(said(capfd)) == 3


@pytest.mark.parametrize(
    ("changes", "more", "told"),
    [
        ({}, ["--trainer.max_epochs=3"], "18 optimizer steps (there 12)"),
        ({}, ["--trainer.max_steps=12", "--data.batch_size=1"], "1 rows a step (there 2)"),
        ({"weights": 26}, [], "25 trained weights (there 26)"),
        ({"options": {"model.wrong": 2.0}}, [], "model.wrong 1.0 (was 2.0)"),
        ({"options": {"model.wrong": 2.0, "model.gone": 1}}, ["--model.wrong=2"], ""),
        ({"options": {"model.wrong": 1.0}}, ["--seed_everything=5"], ""),
        ({"steps": [11, 11]}, [], ""),
        (
            {"at_steps": True, "options": {"model.schedule": "instructgpt.Cosine"}},
            [],
            "model.schedule Constant (was Cosine)",
        ),
    ],
)
def test_another_setting_is_told_in_a_line_and_not_judged(tmp_path, capfd, changes, more, told):
    never = {"val/loss": {"at": [0, 1], "low": [-2, -2], "high": [-1, -1]}}
    banded(tmp_path, content(never, **changes), *more)
    lines, found = said(capfd), seen(tmp_path)
    if told:
        line = "the recipe's bands are drawn, but not judged by: this run has "
        assert lines == [line + told]
        assert (found["other_setting"], found["metrics"]) == ([told], {})
        assert EventAccumulator(str(tmp_path)).Reload().Scalars("bands/val/loss/low")
    else:
        assert len(lines) == 2
        assert found["metrics"]["val/loss"]["left"][0]["value"] > 0


# Of the first steps of a run of any length: the knots are optimizer steps.
FIRST = {"val/loss": {"at": [0, 6], "low": [0.0, 1.0], "high": [2.0, 3.0]}}


def test_a_longer_run_is_judged_in_its_first_steps_only(tmp_path, losses, capfd):
    losses += [0.5, 4.0, 9.0, 9.0]
    banded(tmp_path, content(FIRST, at_steps=True, steps=[6, 6]), HALVES)
    left, end = said(capfd)
    assert left.startswith("val/loss 4 at step 6 is above: its band is 1 to 3 in 3 runs; ")
    assert end == (
        "bands of the first 6 steps of 3 runs: outside were val/loss from step 6 on; 1 of 2 values"
    )
    found = seen(tmp_path)
    assert (found["first_steps"], found["metrics"]["val/loss"]["values"]) == (6, 2)
    events = EventAccumulator(str(tmp_path)).Reload()
    loss, low = (events.Scalars(name) for name in ("val/loss", "bands/val/loss/low"))
    assert [event.step for event in low] == [event.step for event in loss]
    assert [event.value for event in low] == pytest.approx([0.5, 1, *[math.nan] * 2], nan_ok=True)


@pytest.mark.parametrize(
    ("length", "told"),
    [
        (["--trainer.max_epochs=1"], "val/loss stayed inside"),
        (["--trainer.max_epochs=-1", "--trainer.max_time=00:00:00:01"], ""),
    ],
)
def test_first_steps_judge_runs_of_any_length(tmp_path, capfd, length, told):
    wide = {"val/loss": {**WIDE, "at": [0, 12]}}
    banded(tmp_path, content(wide, at_steps=True), *length)
    (line,) = said(capfd)
    assert line.startswith(f"bands of the first 12 steps of 3 runs: {told}")


def test_a_run_that_is_resumed_to_be_longer_goes_on_being_judged(tmp_path, losses, capfd):
    losses += [0.5, 4.0, 4.5, 2.0, 2.0, 9.0, 9.0, 9.0]
    bands = content({"val/loss": {**FIRST["val/loss"], "at": [0, 18]}}, at_steps=True)
    longer = (bands | {"steps": [18, 18]}, HALVES, "--trainer.max_epochs=4")
    banded(tmp_path / "whole", *longer)
    whole = said(capfd)
    banded(tmp_path / "cut", *longer[:2])
    banded(tmp_path / "cut", *longer, "--ckpt_path=last")
    first, second, *rest = said(capfd)
    assert "again" in second
    assert [first, second, *rest[1:]] == whole  # the shorter run has summed up, too
    assert seen(tmp_path / "cut") == seen(tmp_path / "whole")
    assert seen(tmp_path / "cut")["metrics"]["val/loss"]["values"] == 6


def test_other_weights_and_rows_are_another_setting():
    bands = read_bands(content(origins={"data.train": "aa", "model.init_from": "bb"}))
    setting = bands.options, {"data.train": "cc", "model.init_from": "dd"}, 2, 25
    places = {"data.train": "mine.jsonl", "model.init_from": "gpt2"}
    assert bands.others(Setting(*setting), 12, places) == [
        "other rows, data.train mine.jsonl",
        "other weights, model.init_from gpt2",
    ]


def test_a_length_that_is_not_known_has_no_shares(tmp_path, capfd):
    limit = ("--trainer.max_epochs=-1", "--trainer.max_time=00:00:00:01")
    banded(tmp_path, content(), *limit)
    assert said(capfd)[0] == ("the recipe's bands are not shown: this run has no planned length")


def test_a_resumed_run_goes_on_where_it_was(tmp_path, losses, capfd):
    losses += [0.5, 4.0, 4.5, 2.0]
    banded(tmp_path / "whole", content(NARROW), HALVES)
    whole = said(capfd)
    stop = pytest.raises(RuntimeError)
    broken, losses[2] = losses[2], None  # torch.tensor(None) raises in the third validation
    with stop:
        banded(tmp_path / "cut", content(NARROW), HALVES)
    losses[2] = broken
    before = said(capfd)
    banded(tmp_path / "cut", content(NARROW), HALVES, "--ckpt_path=last")
    assert before + said(capfd) == whole
    assert seen(tmp_path / "cut") == seen(tmp_path / "whole")


def test_config_yaml_has_the_bands_and_repeats_the_run(tmp_path, capfd):
    first, again = tmp_path / "first", tmp_path / "again"
    banded(first, content(NARROW))
    (first / "bands.json").unlink()
    config = ("--config", str(first / "config.yaml"))
    fit(again, *config, "--output", str(again))
    assert seen(again) == seen(first)
    fit(again, *config, "--output", str(again), "--bands=null")
    assert "bands" not in json.loads((again / "metrics.json").read_text())


def test_it_changes_nothing_of_the_run(tmp_path):
    banded(tmp_path / "with", content(NARROW))
    fit(tmp_path / "without")
    one, other = (torch.load(tmp_path / f / "export" / "weights.pt") for f in ("with", "without"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_two_processes_say_it_once(tmp_path, capfd):
    narrow = content({"val/loss": {"at": [0, 1], "low": [-2, -2], "high": [-1, -1]}}, rows=4)

    def train():
        banded(tmp_path, narrow, "--trainer.devices=2", "--trainer.strategy=ddp", "--data.rows=24")

    run_processes(train)
    assert len(said(capfd)) == 2
    assert seen(tmp_path)["metrics"]["val/loss"]["values"] == 2


def test_a_metric_that_is_not_logged_is_named(tmp_path, capfd):
    banded(tmp_path, content({"val/los": WIDE, "train/loss": WIDE}))
    assert said(capfd) == [
        "the recipe's bands have val/los, which this run does not log (it logs val/loss)",
        "bands of 3 runs: train/loss stayed inside",
    ]


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        (
            {"val/loss": {"at": [0, 1], "low": [0, 2], "high": [1, 1]}},
            "bands.metrics.val/loss.low at 1 must be at most high (1), got 2",
        ),
        (
            {"val/loss": {"at": [0.5], "low": [0], "high": [1]}},
            "bands.metrics.val/loss.at must be at least two knots, got [0.5]",
        ),
        (
            {"val/loss": {"at": [0, 1], "low": [0], "high": [1, 1]}},
            "bands.metrics.val/loss.low must be as long as at (2), got 1",
        ),
        (
            {"val/loss": {"at": [0, 2], "low": [0, 0], "high": [1, 1]}},
            "bands.metrics.val/loss.at must be rising, from 0 to 1, got [0, 2]",
        ),
        (
            {"val/loss": {"at": [0, 1], "low": [0, None], "high": [1, 1]}},
            "bands.metrics.val/loss.low must be a list of numbers, got [0, None]",
        ),
        (
            {"val/loss": {"at": [0, 1], "low": [0, 0]}},
            "bands.metrics.val/loss must be a mapping of at, low, high, got {'at': [0, 1], "
            "'low': [0, 0]}",
        ),
        (
            {"time/update": WIDE},
            "bands.metrics.time/update must be a metric that says something of the training, as "
            "val/loss, got time/update",
        ),
        ({}, "bands.metrics must be at least one, got none"),
    ],
)
def test_bad_bands_are_refused_in_one_line(metrics, told):
    with pytest.raises(UserError) as refused:
        read_bands(content(metrics))
    assert str(refused.value) == told


def test_numbers_are_where_they_can_be():
    bands = content({"val/loss": {**FIRST["val/loss"], "at": [6, 13]}}, at_steps=True)
    with pytest.raises(UserError, match="at must be rising, from 0 to 12, got"):
        read_bands(bands)
    with pytest.raises(UserError, match=r"bands\.at_steps must be true or false, got 1"):
        read_bands(bands | {"at_steps": 1})
    with pytest.raises(UserError, match=r"bands\.runs must be a number >= 1, got -1"):
        read_bands(bands | {"runs": -1})


def test_a_knot_holds_at_its_step_however_its_share_is_rounded():
    bands = read_bands(content({"val/loss": {**FIRST["val/loss"], "at": [0.1667, 0.6667]}}))
    assert bands.bounds("val/loss", 2, 12) == (0, 2)  # 2/12 is less than 0.1667
    assert math.isnan(bands.bounds("val/loss", 1, 12)[0])
    assert bands.bounds("val/loss", 12, 12) == (1, 3)  # of a whole run: as at the last knot


def test_bad_bands_stop_a_run_before_it_begins(tmp_path):
    with pytest.raises(UserError, match="must be at least two knots"):
        banded(tmp_path, content({"val/loss": {"at": [0.5], "low": [0], "high": [1]}}))
    assert {path.name for path in tmp_path.iterdir()} == {"bands.json", "recipe.yaml"}


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="gone") as refused:
        fit(tmp_path, "--bands=gone.json")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["runs", "steps", "metrics"])
def test_a_key_that_is_missing_is_named(key):
    bands = content()
    del bands[key]
    with pytest.raises(UserError, match=f"bands must have {key}, got runs|bands must have runs"):
        read_bands(bands)


def test_bounds_are_on_straight_lines():
    band = Band([0.2, 0.6, 1.0], [0.0, 1.0, 1.0], [2.0, 2.0, 4.0])
    assert band.bounds(0.0) == (0.0, 2.0)  # as at the first knot
    assert band.bounds(0.4) == pytest.approx((0.5, 2.0))
    assert band.bounds(0.9) == pytest.approx((1.0, 3.5))
    assert band.bounds(1.1) == (1.0, 4.0)


def test_no_number_is_outside():
    watch = Watch()
    assert watch.see(1, float("nan"), 0.0, 1.0) == "not finite"
    assert watch.see(2, float("inf"), 0.0, 1.0) == ""
    assert watch.see(3, 1.0, 0.0, 1.0) == "back"
    assert look_at("val/loss", "not finite").endswith("the number format")


def test_every_metric_has_something_to_look_at():
    assert "samples.jsonl" in look_at("ppo/anything", "above")
    assert look_at("val/greedy_score", "above") == look_at("ppo/score", "above")
