"""Reward functions in a run: they may abstain, and what they get wrong is told with its place."""

import math

import pytest
import torch
from harness import run_processes
from small_ppo import Watch, make

from instructgpt.algorithms.ppo import PPO
from instructgpt.modules.sft import SFTModule
from instructgpt.rewards.base import RewardFunction
from instructgpt.rollout.scoring import without_abstained
from instructgpt.rollout.updates import Batches
from instructgpt.types import Rollout, RunFailedError, ScoredRollout, UserError


class Some(RewardFunction):
    """Length of the response; abstains on every prompt whose id ends in some digits."""

    def __init__(self, without="05"):
        self.without = without

    def raw_scores(self, samples):
        return [None if s.prompt.id[-1] in self.without else len(s.response) for s in samples]


def scored(rows, seed=0):
    """A rollout of 4 prompt and 3 response tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.arange(rows) % 3 + 1
    mask = torch.arange(3) < lengths[:, None]
    values = torch.randn(rows, 4, generator=generator)
    logprobs, reference, entropy = (-torch.rand(rows, 3, generator=generator) for _ in range(3))
    tokens = torch.zeros(rows, 7, dtype=torch.int64)
    prompts, none = torch.ones(rows, 4, dtype=torch.bool), torch.zeros(rows, 3, 0)
    rollout = Rollout(tokens, prompts, mask, lengths < 3, logprobs, none)
    scores = torch.randn(rows, generator=generator)
    return ScoredRollout(rollout, scores, logprobs, reference, values, entropy)


def test_rows_without_a_score_change_nothing_for_the_others():
    """Advantages, returns, whitening, loss and its gradient are those of the other rows alone."""
    everything, kept = scored(6), torch.tensor([True, False, True, True, False, True])
    given = everything.scores.masked_fill(~kept, torch.nan)
    rollout, scores = without_abstained(everything.rollout, given)
    partial = everything._replace(rollout=rollout, scores=scores)
    alone = ScoredRollout(
        Rollout(*(f[kept] for f in everything.rollout)), *(field[kept] for field in everything[1:])
    )
    for algorithm in (PPO(), PPO(whiten_rewards=True, missing_eos_score=None)):
        some, fewer = (algorithm.experience(one, 0.1) for one in (partial, alone))
        torch.testing.assert_close(some.advantages[kept], fewer.advantages)
        torch.testing.assert_close(some.returns[kept], fewer.returns)
        assert not some.advantages[~kept].any()
        new = torch.full((6, 3), -0.5, requires_grad=True)
        loss = algorithm.loss(some, new, everything.values[:, :-1])
        other = algorithm.loss(fewer, new[kept], everything.values[kept, :-1])
        torch.testing.assert_close(loss.total, other.total)
        assert algorithm.row_weights(some).sum() == algorithm.row_weights(fewer).sum()
        (gradient,) = torch.autograd.grad(loss.total, new)
        assert not gradient[~kept].any()
        assert gradient[kept].any()


def test_ppo_counts_them(fit, prompt_data, policy_artefact):
    watch = Watch()
    with pytest.warns(UserWarning, match=r"abstained on \d of 8 responses, which train nothing"):
        fit(make(policy_artefact, Some()), prompt_data(), max_epochs=2, callbacks=[watch])
    assert [phase["ppo/abstained"] for phase in watch.phases] != [0.0, 0.0]
    assert all(math.isfinite(value) for phase in watch.phases for value in phase.values())


def test_ranks_agree(fit, prompt_data, policy_artefact):
    """Each rank scores its share; the counts and means are those of all."""

    def train(processes):
        watch = Watch()
        ddp = {"strategy": "ddp", "devices": 2} if processes > 1 else {}
        module = make(policy_artefact, Some())
        fit(module, prompt_data(), max_epochs=1, callbacks=[watch], limit_val_batches=1.0, **ddp)
        names = ("ppo/abstained", "ppo/score", "ppo/kl", "ppo/response_length", "loss/policy")
        return {name: watch.phases[0][name] for name in names}

    alone = train(1)
    assert alone["ppo/abstained"] > 0
    for ranked in run_processes(lambda: train(2)):
        assert ranked == pytest.approx(alone, rel=1e-4, abs=1e-6)


def test_too_many_stop_the_run(fit, prompt_data, policy_artefact):
    module = make(policy_artefact, Some("0123456"))
    with pytest.raises(RunFailedError, match=r"abstained on \d\d\.\d% of the responses; more than"):
        fit(module, prompt_data(), max_epochs=1)


def test_validation_leaves_them_out(fit, demonstration_data, policy_artefact):
    module = SFTModule(init_from=policy_artefact, reward=Some("02468"), dropout=0.0)
    data = demonstration_data(batch_size=4, validation=0.4)
    trainer = fit(module, data, max_steps=1, limit_val_batches=1.0, val_check_interval=1)
    scores = [row["score"] for row in module.samples]
    given = [score for score in scores if score is not None]
    assert 0 < len(given) < len(scores)
    assert float(trainer.callback_metrics["val/score"]) == pytest.approx(sum(given) / len(given))
    share = 1 - len(given) / len(scores)
    assert float(trainer.callback_metrics["val/abstained"]) == pytest.approx(share)


def test_a_failure_on_one_rank_ends_all(fit, prompt_data, policy_artefact):
    class OnOneRank(RewardFunction):
        def raw_scores(self, samples):
            if torch.distributed.get_rank() == 1:
                raise KeyError("no such prompt")
            return [0.0] * len(samples)

    def train():
        with pytest.raises(UserError) as error:
            fit(make(policy_artefact, OnOneRank()), prompt_data(), strategy="ddp", devices=2)
        return str(error.value)

    first, second = run_processes(train)
    assert first == second
    assert first.startswith("reward: OnOneRank failed: KeyError: 'no such prompt' (at ")
    assert first.endswith("in raw_scores)")


def test_a_minibatch_without_a_score(fit, prompt_data, policy_artefact):
    """Half of the rollout has scores, but none of the rows of one update."""
    module = make(policy_artefact, Some(""), batches=Batches(8, 4))

    class Unlucky(RewardFunction):
        def raw_scores(self, samples):
            rows = module.plan_of_updates.minibatch(0, 0).tolist()
            return [None if row in rows else 1.0 for row in range(len(samples))]

    module.frozen.reward = Unlucky()
    expected = r"abstained on a whole minibatch \(samples .*jsonl.* at optimizer step 1"
    with pytest.raises(RunFailedError, match=expected):
        fit(module, prompt_data(), max_epochs=1)
