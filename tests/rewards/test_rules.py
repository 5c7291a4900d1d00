"""Rules and functions, and what every reward must return."""

import math

import numpy as np
import pytest
import torch

from instructgpt.rewards.base import RewardFunction
from instructgpt.rewards.mixture import MixtureReward
from instructgpt.rewards.rules import CallableReward, CountReward, LengthReward
from instructgpt.types import Prompt, Sample, UserError


def sample(response, prompt="Say it"):
    return Sample(Prompt(prompt, [], "0", {}), response, [1], [2], True)


SAMPLES = [sample("aa b aaa"), sample(""), sample("b b b b")]


class Fixed(RewardFunction):
    def __init__(self, values):
        self.values = values

    def raw_scores(self, samples):
        return self.values

    def warnings(self):
        return [f"fixed {self.values}"]


def double_lengths(prompts, responses):
    return [2 * len(r) + (p == "Say it") for p, r in zip(prompts, responses, strict=True)]


def test_count():
    # "a" occurs 2 + 3 times, "aa" without overlaps once in each word
    assert CountReward("a").score(SAMPLES).tolist() == [5, 0, 0]
    assert CountReward("aa").score(SAMPLES).tolist() == [2, 0, 0]
    assert CountReward("a", maximum=3).score(SAMPLES).tolist() == [3, 0, 0]


def test_length():
    # 3, 0 and 4 words, target 2: -(1, 2, 2) / 2
    assert LengthReward(2).score(SAMPLES).tolist() == [-0.5, -1.0, -1.0]


def test_callable(monkeypatch, tmp_path):
    (tmp_path / "my_reward.py").write_text(
        "def same(prompts, responses): return [1] * len(prompts)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert CallableReward("my_reward:same").score(SAMPLES).tolist() == [1, 1, 1]
    reward = CallableReward("my_reward:same")
    reward.function = double_lengths
    assert reward.score([sample("abc"), sample("", "x")]).tolist() == [7, 0]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("my_reward", "must be 'module:function', got 'my_reward'"),
        ("math:", "must be 'module:function'"),
        ("no_such_module:f", "cannot import 'no_such_module:f'"),
        ("math:no_such", "cannot import 'math:no_such'"),
        ("math:pi", "must name a function, 'math:pi' is none"),
    ],
)
def test_wrong_callables(path, message):
    with pytest.raises(UserError, match=message):
        CallableReward(path)


def test_mixture():
    mixture = MixtureReward([Fixed([1.0, 2.0]), Fixed([10, 20])], [0.5, -1.0])
    # 0.5 * 1 - 10, 0.5 * 2 - 20
    assert mixture.score(SAMPLES[:2]).tolist() == [-9.5, -19.0]
    assert mixture.warnings() == ["fixed [1.0, 2.0]", "fixed [10, 20]"]


@pytest.mark.parametrize(
    ("rewards", "weights", "message"),
    [
        ([Fixed([1])], [1.0, 2.0], "must be 1, one a reward, got 2"),
        ([], [], "must be 0, one a reward, got 0"),
        ([Fixed([1])], [math.inf], r"must be finite, got \[inf\]"),
    ],
)
def test_wrong_mixtures(rewards, weights, message):
    with pytest.raises(UserError, match=message):
        MixtureReward(rewards, weights)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], r"must return 3 scores for as many responses, got shape \(1,\)"),
        (torch.zeros(3, 1), r"got shape \(3, 1\)"),
        ([1.0, math.nan, 2.0], "must return finite scores, got nan for ''"),
        (torch.tensor([1.0, 2.0, -math.inf]), "got -inf for 'b b b b'"),
        (["a", "b", "c"], "must return numbers, got 'a'"),
        ([1.0, 10**400, 1.0], "must return numbers, int too large"),
        (None, "must return numbers"),
    ],
)
def test_wrong_scores(values, message):
    with pytest.raises(UserError, match=f"^reward: Fixed .*{message}") as error:
        Fixed(values).score(SAMPLES)
    assert "\n" not in str(error.value)


def test_what_numpy_and_pandas_return():
    given = np.array([1.0, None, 3.0], dtype=object)
    for values in (given, [np.float32(1), None, torch.tensor(3.0)]):
        first, none, third = Fixed(values).score(SAMPLES).tolist()
        assert (first, third) == (1.0, 3.0)
        assert math.isnan(none)
    assert Fixed(np.arange(3)).score(SAMPLES).tolist() == [0.0, 1.0, 2.0]


def test_scores_are_float32_without_gradient():
    scores = Fixed(torch.ones(3, dtype=torch.float64, requires_grad=True)).score(SAMPLES)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    assert Fixed([]).score([]).shape == (0,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CountReward(""), "reward.text must not be empty"),
        (lambda: CountReward("a", maximum=0), "reward.maximum must be >= 1, got 0"),
        (lambda: LengthReward(0), "reward.target must be >= 1, got 0"),
    ],
)
def test_wrong_values(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_abstaining():
    scores = Fixed([1.0, None, 2.0]).score(SAMPLES)
    assert scores.isnan().tolist() == [False, True, False]
    assert scores[[0, 2]].tolist() == [1.0, 2.0]
    mixture = MixtureReward([Fixed([1.0, None, 2.0]), Fixed([1.0, 1.0, 1.0])], [1.0, 2.0])
    # 1 + 2, nothing, 2 + 2
    assert mixture.raw_scores(SAMPLES) == [3.0, None, 4.0]


def test_what_a_function_raises_is_told_with_its_place(tmp_path, monkeypatch):
    code = "import json\n\n\ndef helper(text):\n    return json.loads(text)\n\n\n"
    code += "def score(prompts, responses):\n    return [helper('{') for _ in prompts]\n"
    (tmp_path / "my_broken_reward.py").write_text(code)
    (tmp_path / "my_late_reward.py").write_text("limit = 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as error:
        CallableReward("my_broken_reward:score").score(SAMPLES)
    assert str(error.value) == (
        "reward: 'my_broken_reward:score' failed: JSONDecodeError: Expecting property name "
        "enclosed in double quotes: line 1 column 2 (char 1) "
        f"(at {tmp_path}/my_broken_reward.py:5 in helper)"
    )
    with pytest.raises(UserError, match=r"ZeroDivisionError: .*my_late_reward\.py:1 in <module>"):
        CallableReward("my_late_reward:score")


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    reward = CountReward("a")
    monkeypatch.setattr(reward, "raw_scores", lambda samples: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reward.score(SAMPLES)
