"""A small PPO stage, and callbacks that watch and stop it."""

from descent import sgd
from lightning.pytorch import Callback

from instructgpt.algorithms.kl import FixedKL
from instructgpt.algorithms.ppo import PPO
from instructgpt.algorithms.schedule import Constant
from instructgpt.models.load import Network
from instructgpt.modules.networks import Value
from instructgpt.modules.ppo import PPOModule
from instructgpt.rewards.rules import CountReward
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.updates import Batches


def make(source, reward=None, **options):
    defaults = {
        "reward": reward or CountReward(text="e"),
        "optimizer": sgd,
        "value": Value(lr=0.1),
        "schedule": Constant(),
        "batches": Batches(8, 4),
        "algorithm": PPO(missing_eos_score=None),
        "kl": FixedKL(0.05),
    }
    return PPOModule(init_from=source, **{**defaults, **options})


def in_pieces(source, value):
    """With a temperature, and micro-batches of few rows of all lengths."""
    return make(
        source,
        sampling=Sampling(temperature=0.7),
        value=Value(value, lr=0.1),
        network=Network(max_tokens=40),
    )


class Watch(Callback):
    """Keeps the metrics of every phase."""

    def __init__(self):
        self.phases = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.phases.append(dict(pl_module.phase.metrics))


class StopAt(Callback):
    """Saves and ends the run after a batch, as a kill would."""

    def __init__(self, epoch, batch, path):
        self.at, self.path = (epoch, batch), path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt
