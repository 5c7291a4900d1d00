"""The quality filter: what is scored, what is kept, and that a reward model says the same alone."""

import json

import pytest
import torch
from hygiene_rows import comparison, demonstration

from instructgpt.hygiene.quality import Quality, Safety
from instructgpt.models.artefact import save_scalar
from instructgpt.models.load import Network, load_scalar
from instructgpt.models.template import get_template
from instructgpt.rewards.base import RewardFunction
from instructgpt.rewards.learned import LearnedReward
from instructgpt.rewards.mixture import MixtureReward
from instructgpt.rewards.rules import CallableReward, CountReward, LengthReward
from instructgpt.types import UserError


class Judge(RewardFunction):
    """As somebody would write one: 1 to 5 by the number of "good"; says nothing of questions."""

    def raw_scores(self, samples):
        return [
            None if s.response.endswith("?") else 1.0 + s.response.count("good") for s in samples
        ]


def test_rows_below_the_threshold_are_dropped_and_scores_are_kept():
    rows = [demonstration("Hi", "good " * count) for count in (4, 3, 2)]
    first, second, third = Quality(Judge(), least=4.0).check_all(rows)
    assert first.row.meta == {"quality_score": 5.0}
    assert second.row.meta == {"quality_score": 4.0}
    assert third.row is None
    assert [v.reasons for v in (first, second, third)] == [
        ("5 to 5.5",),
        ("4 to 4.5",),
        ("3 to 3.5",),
    ]


def test_without_a_threshold_rows_are_only_scored_and_what_has_no_score_stays():
    rows = [demonstration("Hi", "bad"), demonstration("Hi", "good?")]
    scored, unscored = Quality(Judge(), step=2).check_all(rows)
    assert scored.row.meta == {"quality_score": 1.0}
    assert scored.reasons == ("0 to 2",)
    assert unscored == (rows[1], ("no score",), "")


def test_of_a_comparison_the_best_is_scored():
    row = comparison("Hi", ["bad", "good good good good"], [2, 1])
    assert Quality(Judge(), least=4.5).check(row).row is not None
    assert Quality(Judge(), least=4.5).check(row._replace(ranking=[1, 2])).row is None


def test_two_filters_keep_two_scores():
    row = Quality(Judge()).check(demonstration("Hi", "good")).row
    assert Safety(LengthReward(1)).check(row).row.meta == {
        "quality_score": 2.0,
        "safety_score": 0.0,
    }


@pytest.fixture
def reward_model(make_architecture, tiny_tokenizer, tmp_path):
    tokenizer = tiny_tokenizer
    torch.manual_seed(3)
    model = load_scalar(None, make_architecture("gpt2"), Network(), tokenizer, head="new")
    own = {"parent": None, "config": {}, "metrics": {}}
    path, template = tmp_path / "rm", get_template("plain")
    save_scalar(model, tokenizer, path, stage="reward", template=template, **own)
    return str(path)


def test_a_reward_model_says_the_same_of_a_row_whatever_is_beside_it(reward_model):
    rule = Quality(LearnedReward(reward_model))
    rows = [demonstration("Say hello", "hello world" * count) for count in range(1, 6)]
    together = [one.row.meta["quality_score"] for one in rule.check_all(rows)]
    alone = [rule.check(row).row.meta["quality_score"] for row in rows]
    assert together == pytest.approx(alone, abs=2e-4)
    assert len(set(together)) > 1
    assert rule.made_from() == [reward_model]
    assert rule.reward.model is None  # it travels to other processes without its weights


def test_options_are_plain_values_that_tell_rewards_apart(reward_model):
    rewards = [
        CountReward("a"),
        CountReward("b"),
        LearnedReward(reward_model),
        CallableReward("math:sqrt"),
    ]
    rewards += [MixtureReward(rewards[:2], [1.0, 2.0]), MixtureReward(rewards[:2], [2.0, 1.0])]
    told = [json.dumps(Quality(reward).options(), sort_keys=True) for reward in rewards]
    assert len(set(told)) == len(rewards)
    assert json.loads(told[0])["reward"]["text"] == "a"
    assert Quality(MixtureReward([rewards[2]], [1.0])).made_from() == [reward_model]


def test_options_that_cannot_be():
    with pytest.raises(UserError, match=r"--quality.reward must say what scores, got none"):
        Quality(least=4.5).check_options("demonstrations")
    with pytest.raises(UserError, match=r"--safety.reward is for rows with responses, got prompts"):
        Safety(Judge()).check_options("prompts")
    with pytest.raises(UserError, match=r"quality.least must be finite, got nan"):
        Quality(Judge(), least=float("nan")).check_options("demonstrations")
    assert not Quality().is_on("demonstrations")
