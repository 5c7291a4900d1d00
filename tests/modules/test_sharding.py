"""Two FSDP2 processes do what one does, and hold half of it."""

import time

import pytest
import torch
import torch.distributed as dist
from descent import sgd
from harness import run_processes
from spread_stages import fit_rankings, ppo_ptx_stage, ranking_stage, sft_stage

from instructgpt.algorithms.schedule import Constant
from instructgpt.callbacks import lost
from instructgpt.models.artefact import save_policy
from instructgpt.models.load import Network, load_policy
from instructgpt.models.shards import local, whole
from instructgpt.models.template import get_template
from instructgpt.models.trained import LoRA
from instructgpt.modules.ppo import PPOModule
from instructgpt.modules.sft import SFTModule
from instructgpt.modules.sharding import FSDP2Strategy
from instructgpt.rewards.rules import CountReward
from instructgpt.rollout.updates import Batches


def assert_shards_agree(train, processes=2):
    """Train on one process and on several, and compare weights and validation metrics."""
    alone, metrics = train(processes=1)
    for sharded, sharded_metrics in run_processes(
        lambda: train(processes=processes), processes=processes
    ):
        torch.testing.assert_close(torch.tensor(sharded), torch.tensor(alone), atol=1e-5, rtol=1e-5)
        for name, value in metrics.items():
            assert sharded_metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def result(module, trainer):
    names = [n for n in trainer.callback_metrics if n.startswith("val/")]
    if trainer.world_size > 1:  # all but what is not trained and set by hand
        mine = sum(local(p).numel() for p in module.parameters())
        assert mine < 0.6 * sum(p.numel() for p in module.parameters())
    weights = torch.cat([whole(p.detach()).flatten() for p in module.parameters()])
    return weights.tolist(), {n: float(trainer.callback_metrics[n]) for n in names}


def on(processes):
    strategy = {"strategy": "fsdp2", "devices": processes} if processes > 1 else {}
    return {"limit_val_batches": 1.0, "gradient_clip_val": 0.5, **strategy}


@pytest.mark.parametrize(("accumulate", "several"), [(1, 4), (2, 2)])
def test_sft(fit, demonstration_data, policy_artefact, accumulate, several):

    def train(processes):
        tokens = 30 if processes > 1 else None
        network = Network(max_tokens=tokens, gradient_checkpointing=several == 2)
        module = sft_stage(policy_artefact, network)
        data = demonstration_data(batch_size=8 // processes // accumulate)
        limit = {"limit_train_batches": 2 * accumulate, "accumulate_grad_batches": accumulate}
        trainer = fit(module, data, max_epochs=2, **limit, **on(processes))
        return result(module, trainer)

    assert_shards_agree(train, several)


@pytest.mark.parametrize("kind", ["reward", "preference", "preference_lora"])
def test_rankings(fit, comparison_data, reward_artefact, policy_artefact, files, kind):
    """In pieces, of which one rank has more than the other."""

    def train(processes):
        network = Network(max_tokens=60 if processes > 1 else None)
        trained = LoRA(rank=2) if kind == "preference_lora" else None
        init_from = reward_artefact if kind == "reward" else policy_artefact
        module = ranking_stage(kind, init_from, network, trained)
        own = {"demonstrations": files["demonstrations"]} if kind == "reward" else {}
        data = comparison_data(batch_size=8 // processes, **own)
        trainer = fit_rankings(fit, module, data, **on(processes))
        return result(module, trainer)

    assert_shards_agree(train)


@pytest.mark.parametrize(("value", "accumulate"), [("separate", 1), ("shared", 2)])
def test_ppo_ptx(fit, prompt_data, policy_artefact, reward_artefact, files, value, accumulate):
    def train(processes):
        strategy = FSDP2Strategy(shard_frozen=value == "separate")
        network = Network(max_tokens=37 if processes > 1 else None)
        module = ppo_ptx_stage(policy_artefact, reward_artefact, value, network)
        data = prompt_data(pretraining=files["text"], pretraining_block_size=16)
        options = on(processes) | ({"strategy": strategy} if processes > 1 else {})
        options["accumulate_grad_batches"] = accumulate
        trainer = fit(module, data, max_epochs=2, **options)
        weight, metrics = result(module, trainer)
        names = ("ppo/score", "ppo/kl", "loss/policy", "loss/value", "loss/ptx", "ppo/first_ratio")
        names += ("gradient_norm/ppo", "gradient_norm/ptx")
        average = torch.cat([one.flatten() for one in module.phase.average.whole().values()])
        return weight + average.tolist(), {**metrics, **{n: module.phase.metrics[n] for n in names}}

    assert_shards_agree(train)


def test_who_is_waited_for_too_long_is_named(fit, prompt_data, policy_artefact, monkeypatch):
    """Rollouts wait for nobody while they differ in length, and not for ever at their end."""
    monkeypatch.setattr(lost, "GATHERING", 2.0)

    class Slow(CountReward):
        def raw_scores(self, samples):
            if dist.get_rank() == 1:
                time.sleep(12)
            return super().raw_scores(samples)

    def train():
        module = PPOModule(policy_artefact, Slow(text="e"), optimizer=sgd, batches=Batches(4, 4))
        strategy = FSDP2Strategy(timeout_seconds=4.0)
        on_two = {"strategy": strategy, "devices": 2, "callbacks": [lost.LostRanks()]}
        fit(module, prompt_data(), max_epochs=1, **on_two)

    expected = "rank 1 did not come to where the others waited: the rollout of phase 1, before st"
    with pytest.raises(AssertionError, match=expected):
        run_processes(train, timeout=300)


EXPERTS = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {
        **{"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        **{"shared_expert_intermediate_size": 16, "decoder_sparse_step": 1},
    },
}


@pytest.mark.parametrize("kind", EXPERTS)
def test_a_mixture_of_experts(fit, demonstration_data, tiny_tokenizer, tmp_path, kind):
    """A rank may have no token for an expert that the other has some for."""
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "intermediate_size": 32, "initializer_range": 0.2}
    shape |= {"max_position_embeddings": 128, "model_type": kind, **EXPERTS[kind]}

    def make():
        policy = load_policy(None, shape, Network(), tiny_tokenizer)
        own = {"stage": "sft", "parent": None, "config": {}, "metrics": {}}
        save_policy(policy, tiny_tokenizer, tmp_path, template=get_template("plain"), **own)

    def train(processes):
        network = Network(max_tokens=30 if processes > 1 else None)
        options = {"optimizer": sgd, "schedule": Constant(), "network": network}
        module = SFTModule(init_from=str(tmp_path), dropout=0.0, **options)
        data = demonstration_data(batch_size=8 // processes)
        trainer = fit(module, data, max_epochs=2, limit_train_batches=2, **on(processes))
        return result(module, trainer)

    make()
    assert_shards_agree(train)
