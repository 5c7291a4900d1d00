"""Two DDP processes do what one does: same global batches, same weights."""

import pytest
import torch
from descent import sgd, weights
from harness import run_processes

from instructgpt.algorithms.ppo import PPO
from instructgpt.algorithms.raft import RAFT
from instructgpt.algorithms.rloo import RLOO
from instructgpt.algorithms.schedule import Constant
from instructgpt.data.text import TextDataModule
from instructgpt.models.load import Network
from instructgpt.modules.networks import Value
from instructgpt.modules.ppo import PPOModule
from instructgpt.modules.pretraining import Pretraining
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.rewards.learned import LearnedReward
from instructgpt.rewards.rules import CountReward
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.updates import Batches


def assert_ranks_agree(train):
    """Train on one process and on two, and compare weights and validation metrics."""
    alone, metrics = train(processes=1)
    for ranked, ranked_metrics in run_processes(lambda: train(processes=2)):
        torch.testing.assert_close(torch.tensor(ranked), torch.tensor(alone), atol=1e-5, rtol=1e-5)
        for name, value in metrics.items():
            assert ranked_metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def result(module, trainer):
    names = [n for n in trainer.callback_metrics if n.startswith("val/")]
    # Lists, because tensors through a queue of a dying process are lost.
    return weights(module).tolist(), {n: float(trainer.callback_metrics[n]) for n in names}


def on(processes):
    strategy = {"strategy": "ddp", "devices": processes} if processes > 1 else {}
    return {"limit_val_batches": 1.0, **strategy}


@pytest.mark.parametrize(
    ("kind", "accumulate", "max_tokens"),
    [("sft", 1, None), ("sft", 2, 30), ("mixed", 1, 30), ("text", 1, 40)],
)
def test_sft(fit, demonstration_data, policy_artefact, files, kind, accumulate, max_tokens):
    """Also on text, and with text beside demonstrations; in pieces only where there are two."""

    def train(processes):
        module = SFTModule(
            init_from=policy_artefact,
            dropout=0.0,
            optimizer=sgd,
            schedule=Constant(),
            network=Network(max_tokens=max_tokens if processes > 1 else None),
        )
        size = 8 // processes // accumulate
        if kind == "text":
            limits = {"max_prompt_tokens": 8, "max_response_tokens": 8, "validation": 0.2}
            sizes = {"block_size": 16, "batch_size": size}
            source = {"train": files["text"], "tokenizer": policy_artefact}
            data = TextDataModule(**source, **sizes, **limits)
        else:
            mix = {"pretraining": files["text"], "pretraining_block_size": 16}
            data = demonstration_data(batch_size=size, **(mix if kind == "mixed" else {}))
        limit = {"limit_train_batches": 2 * accumulate, "accumulate_grad_batches": accumulate}
        trainer = fit(module, data, max_epochs=2, **limit, **on(processes))
        assert trainer.global_step == 4
        return result(module, trainer)

    assert_ranks_agree(train)


@pytest.mark.parametrize("max_tokens", [None, 60])
def test_reward(fit, comparison_data, reward_artefact, files, max_tokens):
    """Also in pieces, of which one rank has more than the other."""

    def train(processes):
        network = Network(max_tokens=max_tokens if processes > 1 else None)
        options = {"network": network, "optimizer": sgd, "schedule": Constant()}
        module = RewardModule(init_from=reward_artefact, **options)
        data = comparison_data(batch_size=8 // processes, demonstrations=files["demonstrations"])
        trainer = fit(module, data, max_epochs=2, limit_train_batches=2, **on(processes))
        module.finalize()
        return result(module, trainer)

    assert_ranks_agree(train)


@pytest.mark.parametrize("kind", ["sft", "reward"])
def test_streams(fit, demonstration_data, comparison_data, policy_artefact, reward_artefact, kind):
    make = demonstration_data if kind == "sft" else comparison_data

    def train(processes):
        options = {"optimizer": sgd, "schedule": Constant()}
        if kind == "sft":
            module = SFTModule(init_from=policy_artefact, dropout=0.0, **options)
        else:
            module = RewardModule(init_from=reward_artefact, **options)
        data = make(batch_size=8 // processes, streaming=True, shuffle_buffer=9)
        trainer = fit(module, data, max_steps=5, **on(processes))
        assert trainer.global_step == 5
        return result(module, trainer)

    assert_ranks_agree(train)


def test_validation_of_one_prompt_on_two_ranks(fit, prompt_data, policy_artefact, tmp_path):
    """The rank without a prompt takes part in the means all the same."""
    (tmp_path / "one.jsonl").write_text('{"prompt": "say hello"}\n')

    def train(processes):
        module = PPOModule(
            init_from=policy_artefact,
            reward=CountReward(text="e"),
            optimizer=sgd,
            batches=Batches(4, 4),
        )
        data = prompt_data(validation=str(tmp_path / "one.jsonl"))
        return result(module, fit(module, data, max_epochs=1, **on(processes)))

    assert_ranks_agree(train)


@pytest.mark.parametrize(
    ("value", "accumulate", "max_tokens"),
    [("separate", 1, 30), ("separate", 2, None), ("shared", 1, None), ("shared", 2, 30)],
)
def test_ppo_ptx(
    fit, prompt_data, policy_artefact, reward_artefact, files, value, accumulate, max_tokens
):
    """Rollouts, whitening, pretraining mix, target KL and averages over two phases.

    In pieces only where there are two processes.
    """

    def train(processes):
        module = PPOModule(
            init_from=policy_artefact,
            reward=LearnedReward(reward_artefact),
            optimizer=sgd,
            schedule=Constant(),
            batches=Batches(8, 4),
            algorithm=PPO(epochs=2, target_kl=10.0),
            pretraining=Pretraining(0.5, 1),
            value=Value(value, lr=0.1),
            network=Network(max_tokens=max_tokens if processes > 1 else None),
        )
        data = prompt_data(pretraining=files["text"], pretraining_block_size=16)
        trainer = fit(
            module, data, max_epochs=2, accumulate_grad_batches=accumulate, **on(processes)
        )
        weight, metrics = result(module, trainer)
        names = ("ppo/score", "ppo/kl", "loss/policy", "loss/value", "loss/ptx", "ppo/first_ratio")
        names += ("gradient_norm/ppo", "gradient_norm/ptx")
        return weight, {**metrics, **{n: module.phase.metrics[n] for n in names}}

    assert_ranks_agree(train)


RECORDED = {"reuse_logprobs": True, "sampling": Sampling(0.8, top_k=9, own_support=True)}


@pytest.mark.parametrize(
    ("kind", "cap", "options"), [(RLOO, None, {}), (RAFT, None, {}), (RLOO, 1.5, RECORDED)]
)
def test_algorithms_without_a_value_model(
    fit, prompt_data, policy_artefact, reward_artefact, kind, cap, options
):
    """Three responses a prompt; no network is built that nobody trains, which DDP would refuse.

    Also with what sampling has recorded: log-probabilities, and the ids that it drew from.
    """
    own = {"missing_eos_score": None, "target_kl": 5.0, "importance_cap": cap}
    algorithm = kind(responses_per_prompt=3, **own)
    rows = 12 // 3 * algorithm.trained_per_prompt

    def train(processes):
        module = PPOModule(
            init_from=policy_artefact,
            reward=LearnedReward(reward_artefact),
            optimizer=sgd,
            schedule=Constant(),
            batches=Batches(12, rows // 2),
            algorithm=algorithm,
            network=Network(max_tokens=60 if processes > 1 else None),
            **options,
        )
        trainer = fit(module, prompt_data(), max_epochs=2, **on(processes))
        assert trainer.global_step == 4
        assert [group["name"] for group in trainer.optimizers[0].param_groups] == ["policy"]
        assert (module.frozen.reference is not None) is kind.uses_reference
        weight, metrics = result(module, trainer)
        assert ("val/kl" in metrics) is kind.uses_reference
        names = ("ppo/score", "loss/policy", "ppo/first_ratio", "ppo/approx_kl")
        return weight, {**metrics, **{name: module.phase.metrics[name] for name in names}}

    assert_ranks_agree(train)
