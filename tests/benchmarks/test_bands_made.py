"""benchmarks/bands.py: how wide bands are, how often they are wrong, what becomes of a recipe."""

import json
import random
from pathlib import Path

import bands
import bands_width
import numpy as np
import pytest
from interrupted import interrupt_at
from toy_stage import fit, toy_args

from instructgpt.__main__ import main as run
from instructgpt.callbacks.bands import Setting, read_bands
from instructgpt.types import UserError


def run_of(seed, curves, steps=100, **changes):
    setting = {"options": {"model.x": 1}, "origins": {}, "rows": 2, "weights": 25} | changes
    return bands.Run(Path(f"run{seed}"), "a.B", seed, Setting(**setting), steps, curves)


def drawn(seed, noise=0.1, more=0.0):
    """A loss that falls from 2 to 1 over ten places, shifted by the seed, with noise of its own."""
    generator = random.Random(seed)
    shift = generator.gauss(0, noise)
    places = [
        (10 * k, 2 - k / 10 + more + shift + generator.gauss(0, noise / 3)) for k in range(1, 11)
    ]
    return run_of(seed, {"val/loss": places})


def test_the_factor_is_that_of_a_prediction_interval():
    # Student's t for 95 % two-sided: 12.706 with one degree, 2.571 with five; √(1 + 1/n)
    assert bands_width.factor(2, 1) == pytest.approx(12.706 * 1.5**0.5, rel=1e-3)
    assert bands_width.factor(6, 1) == pytest.approx(2.571 * (7 / 6) ** 0.5, rel=1e-3)
    assert bands_width.factor(6, 10) > bands_width.factor(6, 1)  # ten chances to be outside


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8])
def test_students_t_is_what_numbers_drawn_from_it_say(freedom):
    drawn = np.abs(np.random.default_rng(0).standard_t(freedom, 200_000))
    for t in (0.5, 2.0, 6.0):
        assert bands_width.inside_t(t, freedom) == pytest.approx((drawn < t).mean(), abs=4e-3)


def test_two_runs_promise_little_and_it_is_said():
    two, six = bands_width.chance(2, 10), bands_width.chance(6, 10)
    assert two == (6.0, pytest.approx(0.872, abs=1e-3), 0.0)
    assert six.everywhere > 0.95 - 1e-9 or six.k == 6.0
    made = bands.make_bands([drawn(0), drawn(1)], ["val/loss"])
    assert made["chance"]["everywhere"] == 0.0


@pytest.mark.parametrize("runs", [2, 4, 8])
def test_new_runs_stay_inside_as_often_as_is_said(runs):
    """150 new runs, each judged by bands of other runs with the same law."""
    left = 0
    for trial in range(150):
        made = bands.make_bands([drawn(100 * trial + k) for k in range(runs)], ["val/loss"])
        found = bands.judged(drawn(100 * trial + 99), made)
        left += bool(found["val/loss"].left)
    promised = made["chance"]["everywhere"]
    assert 1 - left / 150 >= promised - 0.03
    # The places of a run move together: it is outside hardly more often than at one place.
    assert 1 - left / 150 >= made["chance"]["at_one_place"] - 0.08


def test_a_run_that_went_wrong_is_outside():
    made = bands.make_bands([drawn(k) for k in range(6)], ["val/loss"])
    worse = bands.judged(drawn(7, more=2.0), made)["val/loss"]
    assert worse.outside == worse.values == 10
    assert bands.counts({7: {"val/loss": worse}})["left"] == 1


def test_runs_that_agree_by_chance_have_a_band_that_is_not_nothing():
    same = [run_of(seed, {"val/loss": [(50, 2.0), (100, 1.0)]}) for seed in range(3)]
    band = read_bands(bands.make_bands(same, ["val/loss"])).metrics["val/loss"]
    low, high = band.bounds(1.0)
    assert high - low > 0.05


def test_each_run_is_judged_by_the_others():
    runs = [*(drawn(k) for k in range(5)), drawn(9, more=9.0)]
    found = bands.left_out(runs, ["val/loss"])
    assert (found["runs"], found["left"]) == (6, 1)
    assert found["by_seed"] == {"9": {"val/loss": 10}}


def test_few_knots_say_what_many_places_do():
    curves = [[(k / 200, 1 / k + seed / 100) for k in range(1, 201)] for seed in range(4)]
    band = bands_width.band_of(curves, 6.0)
    assert 2 < len(band.at) <= bands_width.MOST_KNOTS
    grid, values = bands_width.on_one_grid(curves)
    mean, sd = values.mean(0), bands_width.spread(values)
    for share, middle, spread in zip(grid, mean, sd, strict=True):
        low, high = band.bounds(share)
        assert abs((low + high) / 2 - middle) < 3 * spread


def test_a_single_validation_at_the_end_has_a_band():
    runs = [run_of(seed, {"val/accuracy": [(100, 0.99 - seed / 100)]}) for seed in range(3)]
    band = read_bands(bands.make_bands(runs, ["val/accuracy"])).metrics["val/accuracy"]
    low, high = band.bounds(1.0)
    assert band.at == [0.99, 1.0]
    assert 0 < low < 0.97
    assert high == 1.0  # no accuracy is above it


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"options": {"model.x": 2}}, r"model.x of run1 must be that of run0 \(1\), got 2"),
        ({"steps": 150}, r"the optimizer steps of the runs must be within 10% of each other"),
        ({"rows": 4}, r"rows a step of run1 must be that of run0 \(2\), got 4"),
    ],
)
def test_runs_of_another_setting_are_refused(other, told):
    with pytest.raises(UserError, match=told):
        bands.check_same([run_of(0, {}), run_of(1, {}, **other)])
    with pytest.raises(UserError, match="the seeds of the runs must be different"):
        bands.check_same([run_of(0, {}), run_of(0, {})])


def test_what_all_runs_have_in_common_is_what_bands_hold_for():
    origins = {"data.train": "aa", "data.validation": "bb"}
    runs = [drawn(0), drawn(1)]
    runs = [
        run._replace(setting=run.setting._replace(origins={**origins, "data.train": f"{n}"}))
        for n, run in enumerate(runs)
    ]
    assert bands.make_bands(runs, ["val/loss"])["origins"] == {"data.validation": "bb"}


def test_an_unknown_metric_is_named():
    with pytest.raises(UserError, match=r"not every run has logged val/los.*did you mean val/loss"):
        bands.chosen([drawn(0), drawn(1)], ["val/los"])


def first_steps(seed, steps):
    """Of a run with a Constant schedule: a phase of ten steps, validations at 20 and the end."""
    phases = [(step, 1.0 + seed / 10 + step / 100) for step in range(10, steps + 1, 10)]
    curves = {"ppo/kl": phases, "val/kl": [(steps, 1.0)]}
    return run_of(seed, curves, steps, options={"model.schedule": "instructgpt.Constant"})


def test_where_nothing_depends_on_the_length_bands_are_of_first_steps():
    runs = [first_steps(0, 30), first_steps(1, 40)]
    bands.check_same(runs)
    runs = bands.cut(runs)
    assert bands.chosen(runs, None) == ["ppo/kl"]  # the shorter run validated at a step of its own
    content = bands.make_bands(runs, ["ppo/kl"])
    made = read_bands(content)
    assert (made.first_steps, made.metrics["ppo/kl"].at) == (30, [10, 30])
    longer = bands.judged(first_steps(2, 900), content)["ppo/kl"]
    assert (longer.values, longer.left) == (3, [])
    assert bands.judged(first_steps(2, 20), content)["ppo/kl"].values == 2


@pytest.mark.parametrize(
    ("schedule", "same", "longer"),
    [
        ("Constant", "bands of the first 12 steps of 3 runs: ", "bands of the first 12 steps of 3"),
        (
            "Cosine",
            "bands of 3 runs: ",
            "not judged by: this run has 18 optimizer steps (there 12)",
        ),
    ],
)
def test_from_runs_to_a_recipe_that_fit_judges_by(tmp_path, capsys, schedule, same, longer):
    options = (f"--model.schedule={schedule}", "--trainer.log_every_n_steps=2")
    for seed in range(4):
        fit(tmp_path / f"{seed}", f"--seed_everything={seed}", *options)
    recipe = tmp_path / "toy.yaml"
    recipe.write_text("# A toy.\noutput: x # here\ntrainer:\n  max_epochs: 2 # few\n")
    results = tmp_path / "results.json"
    runs = [str(tmp_path / f"{seed}") for seed in range(3)]
    asked = [*runs, "--recipe", str(recipe), "--results", str(results)]
    bands.main([*asked, "--judge", str(tmp_path / "3")])
    text = recipe.read_text()
    assert text.splitlines()[:3] == ["# A toy.", "output: x # here", "bands: bands/toy.json"]
    bands.main(asked)
    assert recipe.read_text() == text  # once
    content = json.loads((tmp_path / "bands" / "toy.json").read_text())
    assert content["seeds"] == [0, 1, 2]
    assert list(content["metrics"]) == ["train/loss", "val/loss"]
    counted = json.loads(results.read_text())[recipe.with_suffix("").as_posix()]
    assert (counted["left_out"]["runs"], "judged" in counted) == (3, False)
    new = ("--config", str(recipe), "--output", str(tmp_path / "new"), *options)
    for more, told in ((), same), (("--trainer.max_epochs=3",), longer):
        capsys.readouterr()
        fit(tmp_path / "new", *new, *more)
        assert told in capsys.readouterr().out


def test_a_run_that_was_stopped_is_a_shorter_one(tmp_path, monkeypatch):
    recipe = tmp_path / "toy.yaml"
    recipe.write_text("output: x\n")
    every = ("--trainer.log_every_n_steps=2", "--seed_everything=1")
    fit(tmp_path / "whole", every[0])
    interrupt_at(monkeypatch, 8)
    assert run(toy_args("--output", str(tmp_path / "stopped"), *every)) == 130
    bands.main([str(tmp_path / "whole"), str(tmp_path / "stopped"), "--recipe", str(recipe)])
    made = read_bands(json.loads((tmp_path / "bands" / "toy.json").read_text()))
    assert (made.steps, made.first_steps) == ([9, 12], 9)
    assert (made.metrics["train/loss"].at[-1], made.metrics["val/loss"].at[-1]) == (8, 6)
