"""Results as JSON and back."""

import json
import math

import pytest
from evaluation_results import LEAST, results_of

from instructgpt.evaluation.records import from_json, to_json
from instructgpt.evaluation.report_files import plain
from instructgpt.evaluation.results import (
    Checkpoint,
    Difference,
    OverOptimisation,
    Results,
    ShownAnswer,
    read_results,
)
from instructgpt.evaluation.statistics import Estimate
from instructgpt.types import UserError


def test_what_was_written_is_read_again():
    found = results_of({})
    found.utility = {"sampled": {"sft": Estimate(0.5, 0.25, 0.75, 4)}}
    found.truthfulness = {"sft": {"truthful": Estimate(0.5, 0.25, 0.75, 4, facts=2)}}
    found.add_differences("nlp", [Difference("a", "b", 1.0, 0.5, 1.5, 3)])
    found.add_differences("nothing", [])
    found.curves = {"sft": {"val/loss": [(1, 0.5), (2, 0.25)]}}
    checkpoint = Checkpoint(3, 0.5, utility=Estimate(1.0, 0.5, 1.5, 2))
    found.over_optimisation = OverOptimisation(checkpoints={"ppo": [checkpoint]})
    data = json.loads(json.dumps(plain(to_json(found))))
    assert from_json(Results, data, "x") == found
    assert list(data) == [
        *("title", "seed", "models", "labels", "baseline", "decodings", "judges"),
        *("differences", "utility", "truthfulness", "over_optimisation", "curves"),
    ]
    assert list(data["utility"]["sampled"]["sft"]) == ["value", "low", "high", "n"]
    assert data["truthfulness"]["sft"]["truthful"]["facts"] == 2
    assert list(data["differences"]) == ["nlp"]
    assert list(data["over_optimisation"]["checkpoints"]["ppo"][0]) == ["step", "kl", "utility"]


def test_what_is_not_a_number_is_null_in_the_file():
    one = Estimate(0.5, math.nan, math.inf, 1)
    data = plain(to_json(one))
    assert data == {"value": 0.5, "low": None, "high": None, "n": 1}
    assert math.isnan(from_json(Estimate, data, "x").low)
    empty = ShownAnswer("text", None)  # None is known to be nothing: it has no default
    assert to_json(empty) == {"text": "text", "utility": None}
    assert from_json(ShownAnswer, to_json(empty), "x") == empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has the key 'version', which this version does not know"),
        ({"models": None}, "results.json.models: must be a list, got None"),
        ({"seed": 1.5}, "results.json.seed: must be int, got 1.5"),
        ({"seed": True}, "results.json.seed: must be int, got True"),
        ({"labels": {"a": 1}}, "results.json.labels.a: must be str, got 1"),
        ({"nlp": {"a": {"b": {"value": 1}}}}, "results.json.nlp.a.b: must have the key 'low'"),
        ({"curves": {"a": {"b": [[1, 2, 3]]}}}, "results.json.curves.a.b[0]: must be a list of 2"),
    ],
)
def test_results_of_another_version_are_refused_in_one_line(tmp_path, change, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(LEAST | change))
    with pytest.raises(UserError) as error:
        read_results(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_part_is_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({key: value for key, value in LEAST.items() if key != "judges"}))
    with pytest.raises(UserError, match="must have the key 'judges'"):
        read_results(path)
