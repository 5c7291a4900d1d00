"""What two reward models have in common, by their training prompts and by their weights."""

import copy

import numpy as np
import pytest
import torch

from instructgpt.data.sketch import KEPT, read_sketch, share_among, sketch
from instructgpt.evaluation.independence import Known, in_common
from instructgpt.models.artefact import read_artefact, save_scalar
from instructgpt.models.features import Features
from instructgpt.models.load import Network, load_scalar
from instructgpt.models.template import get_template


def test_the_overlap_of_two_sets_is_seen_in_their_samples():
    # 20,000 and 10,000 prompts, 6,000 of them the same: .3 of one set, .6 of the other. A sample of
    # n says it within sqrt(p (1 - p) / n): .029 with 256, .044 with the half of that.
    numbers = np.random.default_rng(0).integers(0, 2**64, 24_000, dtype=np.uint64)
    large, small = sketch(numbers[:20_000]), sketch(np.tile(numbers[14_000:], 2))
    assert (large.distinct, small.distinct) == (20_000, 10_000)
    share, seen = share_among(large, small)
    assert seen == KEPT
    assert share == pytest.approx(0.3, abs=0.09)
    assert share_among(small, large)[0] == pytest.approx(0.6, abs=0.14)
    halves = sketch(numbers[::2]), sketch(numbers[1::2])
    assert share_among(*halves)[0] == 0
    again = read_sketch(large.plain)
    assert again.distinct == large.distinct
    assert (again.least == large.least).all()


def test_of_a_set_that_is_too_large_for_a_sample_of_another_nothing_is_known():
    few = sketch([2**64 - 1])
    assert share_among(few, sketch(range(10_000))) is None


@pytest.mark.parametrize("found", [None, 3, {}, {"distinct": 1, "least": "zz" * 8}])
def test_what_is_no_sample_is_none(found):
    assert read_sketch(found) is None


def one_set(name, keys):
    return [{"use": "training", "name": name, "rows": len(keys), "prompts": sketch(keys).plain}]


@pytest.fixture
def known(make_architecture, tiny_tokenizer, tmp_path):
    """Two models that have nothing in common but some of their training prompts."""
    model = load_scalar(None, make_architecture("gpt2"), Network(), tiny_tokenizer, head="new")
    told = {"stage": "reward", "template": get_template("plain"), "parent": None}
    save_scalar(model, tiny_tokenizer, tmp_path / "export", **told, config={}, metrics={})
    about = read_artefact(tmp_path / "export")
    judge, reward = (
        Known(about._replace(data=one_set(name, keys)), copy.deepcopy(model))
        for name, keys in (("a.jsonl", range(9)), ("b.jsonl", range(6, 30)))
    )
    change(judge.model, 0)
    return judge, reward


def change(model, first):
    """Add something to the weights of all layers from one on."""
    layers = list(model.trunk.h)
    with torch.no_grad():
        for layer in layers[first:]:
            for weight in layer.parameters():
                weight += 1


def test_prompts_in_common_are_told_whatever_the_sets_are_called(known):
    judge, reward = known
    # 6, 7 and 8 of 0 to 8 are among 6 to 29
    line = "3 of the judge's 9 training prompts are in both (a.jsonl and b.jsonl)"
    assert in_common(judge, reward) == [line]
    halves = judge.artefact._replace(data=one_set("b.jsonl", range(6)))
    assert in_common(judge._replace(artefact=halves), reward) == []


def test_without_samples_sets_are_known_by_their_names(known):
    judge, reward = known
    (mine,) = judge.artefact.data
    of_old = {**mine, "name": "b.jsonl", "prompts": None}
    artefact = judge.artefact._replace(data=[of_old])
    line = "both were trained on b.jsonl (9 rows and 24 rows)"
    assert in_common(judge._replace(artefact=artefact), reward) == [line]


def test_the_same_start_is_known_by_its_weights(known):
    judge, reward = (
        Known(one.artefact._replace(parent=parent, parent_digest="abc", data=[]), one.model)
        for one, parent in zip(known, ("/x/runs/sft", "/y/copy/sft"), strict=True)
    )
    assert in_common(judge, reward) == ["both started from the weights of runs/sft and copy/sft"]
    other = reward._replace(artefact=reward.artefact._replace(parent_digest="abd"))
    assert in_common(judge, other) == []


def test_layers_in_common_are_counted_from_below(known):
    judge, reward = known
    line = "the first 1 of their 2 layers are the same weights"
    last = copy.deepcopy(reward.model)
    change(last, 1)
    assert in_common(judge._replace(model=last), reward)[-1] == line
    same = judge._replace(model=copy.deepcopy(reward.model))
    line = "all 2 layers are the same weights, of which both heads read the same"
    assert in_common(same, reward)[-1] == line
    same.model.features = Features((2,), ("last",))  # which is what a plain head reads
    assert in_common(same, reward)[-1] == line
    same.model.features = Features((1,), ("mean",))
    assert in_common(same, reward)[-1].endswith("of which their heads read different ones")
