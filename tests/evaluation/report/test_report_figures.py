"""Figures: which are made, what they show, and that text of the user's does no harm."""

from __future__ import annotations

import math
import re
import sys
from itertools import pairwise

import pytest
from evaluation_results import results_of

from instructgpt.evaluation.report import figures as report_figures
from instructgpt.evaluation.report.drawing import draw, inline
from instructgpt.evaluation.report.estimates import SHARE, interval, written
from instructgpt.evaluation.report.figures_training import MOST_POINTS, thinned
from instructgpt.evaluation.report.plots import drawable, whiskers
from instructgpt.evaluation.report.reading import curve_panels, in_order
from instructgpt.evaluation.report.style import COLOURS, INK, looks
from instructgpt.evaluation.statistics import Estimate
from instructgpt.miniature.paper import CONTENTS

FIGURES = [
    *("win_rates_sampled", "win_rates_greedy", "likert", "utility", "use_cases", "metadata"),
    *("closed_domain", "truthfulness", "toxicity", "nlp", "reliability", "reward_accuracy"),
    *("agreement_training", "agreement_held_out", "agreement_shifted"),
    *("over_optimisation_utility", "over_optimisation_score"),
    *("curves_pretrain", "curves_sft", "curves_reward", "curves_ppo"),
]


def make_figures(results):
    return report_figures.make_figures(results_of(results), CONTENTS.drawers)


def test_every_figure_is_made_and_none_stays_open(results):
    figures = make_figures(results)
    assert list(figures) == FIGURES
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []
    assert all(figure.get_suptitle() for figure in figures.values())


def test_nothing_is_drawn_from_nothing(minimal):
    assert list(make_figures(minimal)) == ["win_rates_sampled"]
    assert make_figures({}) == {}


def test_the_style_does_not_stay(results):
    from matplotlib import rcParams

    before = dict(rcParams)
    make_figures({"likert": results["likert"]})
    assert dict(rcParams) == before


def test_dots_stand_at_the_values(results):
    axes = make_figures(results)["win_rates_sampled"].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        *("GPT", "GPT few-shot", "PPO", "PPO-ptx"),
    ]
    assert axes.yaxis_inverted()  # the first model on top
    # panel is drawn first, one dot for each model; in percent
    dots = [container.lines[0].get_xdata()[0] for container in axes.containers[:4]]
    assert dots == pytest.approx([14, 24, 61.1, 58.7])
    # the judges of a model stand below each other, around its line
    heights = [container.lines[0].get_ydata()[0] for container in axes.containers[::4]]
    assert heights == sorted(heights)
    assert heights == pytest.approx([-0.288, -0.144, 0, 0.144, 0.288])  # 0.72 / 5 apart
    whisker = axes.containers[3].lines[2][0].get_segments()[0][:, 0]
    low = 58.7 - 196 * math.sqrt(0.587 * 0.413 / 400)
    assert whisker[0] == pytest.approx(low, abs=0.01)


def test_whiskers_of_the_reliability_are_those_of_the_results(results):
    axes = make_figures({"reward_model": results["reward_model"]})["reliability"].axes[0]
    ends = [list(line.get_ydata()) for line in axes.lines[2:]]  # after the diagonal and the curve
    assert ends[0] == pytest.approx([51, 59])
    assert len(ends) == 6
    assert axes.get_ylabel() == "% in which the labeler\nprefers the higher score"


def test_the_distance_is_from_the_baseline(results):
    part = {key: results[key] for key in ("over_optimisation", "labels")} | {"baseline": "gpt"}
    axes = make_figures(part)["over_optimisation_score"].axes[0]
    assert axes.get_xlabel() == "KL from GPT, nats (best of n: at most); 95 % interval"


def test_bars_start_at_zero(results):
    for name in ("nlp", "toxicity", "truthfulness", "closed_domain"):
        assert make_figures({name: results[name]})[name].axes[0].get_ylim()[0] == 0


def test_no_two_models_look_alike():
    names = [f"model {i}" for i in range(20)]
    many = looks(names)
    assert len(set(many.values())) == 20
    few = looks(names[: len(COLOURS)])
    assert all(many[name] == look for name, look in few.items())  # a further arm changes no other
    assert len({look.colour for look in few.values()}) == len(COLOURS)
    assert len({look.mark for look in few.values()}) == len(COLOURS)


def test_labels_of_many_models_do_not_touch():
    names = ["GPT", "GPT few-shot", "SFT", "PPO", "PPO-ptx", "RLOO", "DPO", "IPO", "RAFT"]
    share = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 400}
    table = {name: {"follow": share, "hallucination": share} for name in names}
    figure = make_figures({"models": names, "closed_domain": table})["closed_domain"]
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].get_xticklabels()]
    assert all(left.x1 + 2 < right.x0 for left, right in pairwise(boxes))


def test_a_legend_is_read_line_by_line():
    names = ["GPT", "SFT", "PPO", "PPO-ptx", "DPO"]
    table = {name: {"ends": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}} for name in names}
    figure = make_figures({"models": names, "metadata": table})["metadata"]
    figure.draw_without_rendering()
    places = {text.get_text(): text.get_window_extent() for text in figure.legends[0].texts}
    read = sorted(places, key=lambda name: (-round(places[name].y0), places[name].x0))
    assert read == names


def test_labels_are_text(results):
    results["labels"] = {"sft": "$x_{ <b>&", "ppo": "日本 100 %"}
    figure = make_figures({**results, "curves": {}})["nlp"]
    svg, png = draw("nlp", figure)
    assert "$x_{ &lt;b&gt;&amp;" in svg
    assert png.startswith(b"\x89PNG")


def test_ids_of_two_figures_differ_and_colours_follow_the_page(results):
    figures = make_figures(results)
    pictures = [draw(name, figures[name])[0] for name in ("win_rates_sampled", "win_rates_greedy")]
    first, second = (set(re.findall(r' id="(.*?)"', picture)) for picture in pictures)
    assert first
    assert first.isdisjoint(second)
    assert "var(--ink)" in pictures[0]
    assert INK not in pictures[0]


def test_what_svg_does_not_need_is_dropped():
    svg = (
        '<?xml version="1.0"?><svg width="1" xmlns="http://www.w3.org/2000/svg"><metadata>x'
        '</metadata><!-- c --><defs><style type="text/css">*{}</style></defs><g id="a"/>'
        '<g id="unused"/><use xlink:href="#a"/></svg>'
    )
    assert inline("f", svg, 'a "b"') == (
        '<svg role="img" aria-label="a &quot;b&quot;" width="1"><defs></defs><g id="f-a"/>'
        '<g/><use xlink:href="#f-a"/></svg>'
    )


def test_long_curves_become_means_of_neighbours():
    xs, ys = thinned([[step, 2.0 * step] for step in range(4000)])
    assert len(xs) <= MOST_POINTS
    assert ys == [2 * x for x in xs]
    assert thinned([(0, math.nan), (1, 5)]) == ([1.0], [5.0])
    assert thinned([]) == ([], [])


def test_curves_of_one_measure_share_a_panel():
    panels = curve_panels({"train/loss": [[0, 1]], "val/loss": [[0, 1]], "kl": [[0, 1]], "x": []})
    assert {name: list(kinds) for name, kinds in panels.items()} == {
        "loss": ["train", "val"],
        "kl": [""],
    }


def test_estimates():
    found = Estimate(0.5, math.nan, math.nan, 4)
    assert interval(found, SHARE) == ""
    assert whiskers([found, Estimate(0.5, 0.25, 1.0, 4)], SHARE) == [[0, 25], [0, 50]]
    assert written(-0.031, SHARE) == "\N{MINUS SIGN}3.1\u00a0%"


def test_what_is_unknown_is_not_drawn():
    known, unknown = (Estimate(value, value, value, 1) for value in (0.5, math.nan))
    assert drawable([None, known, unknown]) == [(1, known)]


def test_order_of_models():
    results = results_of({"models": ["a", "b", "c"]})
    assert in_order(results, ["z", "c", "a"]) == ["a", "c", "z"]
