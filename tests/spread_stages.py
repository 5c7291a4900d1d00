"""Stages that several processes train between them, and one alone: the results are compared."""

from descent import sgd

from instructgpt.algorithms.ppo import PPO
from instructgpt.algorithms.schedule import Constant
from instructgpt.modules.networks import Value
from instructgpt.modules.optimizer import PaperAdam
from instructgpt.modules.ppo import PPOModule
from instructgpt.modules.preference import PreferenceModule
from instructgpt.modules.pretraining import Pretraining
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.modules.sharding import gathered
from instructgpt.rewards.learned import LearnedReward
from instructgpt.rewards.rules import CountReward
from instructgpt.rollout.updates import Batches


def sft_stage(policy, network):
    """SFT without dropout."""
    parts = {"optimizer": sgd, "schedule": Constant(), "network": network}
    return SFTModule(init_from=policy, dropout=0.0, **parts)


def ranking_stage(kind, init_from, network, trained=None):
    """A reward model, or a policy that learns from rankings and answers four prompts."""
    parts = {"optimizer": sgd, "schedule": Constant(), "network": network}
    if kind == "reward":
        return RewardModule(init_from=init_from, **parts)
    answers = {"validation_prompts": 4, "reward": CountReward(text="e")}
    return PreferenceModule(init_from=init_from, trained=trained, **parts, **answers)


def fit_rankings(fit, module, data, **options):
    """Two steps an epoch, and all that the end of a run computes."""
    trainer = fit(module, data, max_epochs=2, limit_train_batches=2, **options)
    with gathered(trainer):
        module.finalize()
    return trainer


def ppo_ptx_stage(policy, reward, value, network):
    """PPO-ptx with a learned reward; of a shared value model with Adam."""
    return PPOModule(
        init_from=policy,
        reward=LearnedReward(reward),
        optimizer=PaperAdam if value == "shared" else sgd,
        schedule=Constant(),
        batches=Batches(8, 4),
        algorithm=PPO(epochs=2, target_kl=10.0),
        pretraining=Pretraining(0.5, 1),
        value=Value(value, lr=0.01, warmup_phases=1),
        network=network,
    )
