"""Agreement, ceiling and calibration of panels, against simulation."""

import json
from itertools import permutations

import numpy as np
import pytest

from instructgpt.feedback.labelers import Labeler
from instructgpt.feedback.panels import (
    Panel,
    calibrate,
    make_panel,
    opposing_panels,
    panel_from_json,
    panel_to_json,
)
from instructgpt.types import UserError

WEIGHTS = {"follow": 2.2, "relevance": 1.0, "toxic": -2.0, "detail": 0.6, "length": -0.5}


def responses(count, seed=0):
    rng = np.random.default_rng(seed)
    return [{key: float(rng.random()) for key in WEIGHTS} for _ in range(count)]


def some_pairs(count, seed=0):
    both = responses(2 * count, seed)
    return list(zip(both[:count], both[count:], strict=True))


def test_panel_and_labeler_agree():
    panel, pairs = make_panel("training", 4, WEIGHTS), some_pairs(5)
    win, tie = panel.prefers(pairs)
    for i, (first, second) in enumerate(pairs):
        each = [labeler.prefers(first, second) for labeler in panel.labelers]
        assert win[i] == pytest.approx(np.mean([one.win for one in each]))
        assert tie[i] == pytest.approx(np.mean([one.tie for one in each]))


def test_agreement_by_hand():
    # Two labelers, one pair, no ties: .8 and .6 for the first. Same: .8 * .6 + .2 * .4 = .56.
    first, second = {"x": 1.0}, {"x": 0.0}
    weights = [{"x": float(np.log(p / (1 - p)))} for p in (0.8, 0.6)]
    panel = Panel("p", tuple(Labeler(str(i), "p", w, 1.0, 0.0) for i, w in enumerate(weights)))
    assert panel.agreement([(first, second)]) == pytest.approx(0.56)
    matrix = panel.agreement_matrix([(first, second)])
    # asked twice: .8² + .2² = .68 and .6² + .4² = .52
    assert matrix == pytest.approx(np.array([[0.68, 0.56], [0.56, 0.52]]))
    # the mean vote is .7 for the first, so that is how often a perfect scorer is right
    assert panel.ceiling([(first, second)]) == pytest.approx(0.7)


def test_agreement_and_ceiling_by_simulation():
    panel = make_panel("training", 3, WEIGHTS, tie=0.4).louder(0.6)
    pairs = some_pairs(40)
    rng, rounds = np.random.default_rng(0), 150
    same = both = right = decided = 0
    win, tie = panel.prefers(pairs)
    better = win > 1 - win - tie
    for _ in range(rounds):
        for i, (first, second) in enumerate(pairs):
            votes = [one.rank([first, second], ["a", "b"], rng) for one in panel.labelers]
            votes = [ranking[1] - ranking[0] for ranking in votes]  # 1, 0 or -1
            for one, other in permutations(votes, 2):
                if one and other:
                    both += 1
                    same += one == other
            decided += sum(map(abs, votes))
            right += sum((vote > 0) == better[i] for vote in votes if vote)
    assert panel.agreement(pairs) == pytest.approx(same / both, abs=0.01)
    assert panel.ceiling(pairs) == pytest.approx(right / decided, abs=0.01)


@pytest.mark.parametrize("target", [0.65, 0.726, 0.773])
def test_calibration_hits_its_target(target):
    pairs = some_pairs(300)
    panel = make_panel("training", 6, WEIGHTS, seed=3)
    calibrated, factor = calibrate(panel, pairs, target)
    assert calibrated.agreement(pairs) == pytest.approx(target, abs=0.002)
    assert calibrated.labelers[0].noise == pytest.approx(panel.labelers[0].noise * factor)
    assert calibrated.labelers[0].weights == panel.labelers[0].weights


@pytest.mark.parametrize("target", [0.45, 0.999])
def test_what_no_noise_can_reach_is_refused(target):
    with pytest.raises(UserError, match=r"agreement of the training labelers must be between"):
        calibrate(make_panel("training", 4, WEIGHTS), some_pairs(100), target)


def test_labelers_differ_around_the_mean():
    panel = make_panel("training", 400, WEIGHTS, spread=0.35)
    follow = np.log([one.weights["follow"] / 2.2 for one in panel.labelers])
    assert follow.mean() == pytest.approx(0, abs=0.06)
    assert follow.std() == pytest.approx(0.35, abs=0.04)
    assert all(one.weights["toxic"] < 0 for one in panel.labelers)  # nobody likes a fault
    assert any(one.weights["detail"] < 0 for one in panel.labelers)  # but detail is a taste
    noise = np.log([one.noise for one in panel.labelers])
    assert noise.mean() == pytest.approx(0, abs=1e-9)


def test_a_shift_moves_the_group():
    plain = make_panel("shifted", 300, WEIGHTS)
    shifted = make_panel("shifted", 300, WEIGHTS, shift=0.8)
    moved = []
    for key in ("follow", "relevance", "toxic"):
        means = [
            np.log([one.weights[key] / WEIGHTS[key] for one in panel.labelers]).mean()
            for panel in (plain, shifted)
        ]
        assert means[0] == pytest.approx(0, abs=0.08)
        moved.append(abs(means[1]))
    assert max(moved) > 0.3


def test_a_panel_is_a_function_of_seed_and_name():
    assert make_panel("a", 3, WEIGHTS, seed=1) == make_panel("a", 3, WEIGHTS, seed=1)
    backwards = dict(reversed(WEIGHTS.items()))
    assert make_panel("a", 3, backwards, seed=1).labelers == make_panel("a", 3, WEIGHTS, 1).labelers
    assert make_panel("a", 3, WEIGHTS, seed=1) != make_panel("a", 3, WEIGHTS, seed=2)
    taste = [make_panel(n, 1, WEIGHTS).labelers[0].weights for n in ("a", "b")]
    assert taste[0] != taste[1]


def test_opposing_groups_want_opposite_things():
    brief, detailed = opposing_panels(5, WEIGHTS)
    short = dict.fromkeys(WEIGHTS, 0.5) | {"detail": 0.1, "length": 0.0}
    long = short | {"detail": 1.0}
    assert brief.prefers([(short, long)])[0][0] > 0.6
    assert detailed.prefers([(long, short)])[0][0] > 0.6


def test_json_round_trip():
    panel = make_panel("held_out", 3, WEIGHTS)
    plain = json.loads(json.dumps(panel_to_json(panel)))
    assert panel_from_json(plain, "panels.json") == panel


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"name": "x"},
        {"name": "x", "labelers": []},
        {"name": "x", "labelers": [{"name": "a"}]},
        {
            "name": "x",
            "labelers": [{"name": "a", "group": "x", "weights": {"a": 1}, "noise": 0, "tie": 0}],
        },
    ],
)
def test_a_wrong_panel_is_one_line(value):
    with pytest.raises(UserError, match=r"^panels.json: must be a panel"):
        panel_from_json(value, "panels.json")
