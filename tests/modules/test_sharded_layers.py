"""What an FSDP2 process has whole: a layer or two in updates, one network in a rollout."""

import pytest
from descent import sgd
from harness import run_processes
from lightning.pytorch import Callback
from torch.distributed.tensor import DTensor

from instructgpt.algorithms.ppo import PPO
from instructgpt.algorithms.schedule import Constant
from instructgpt.callbacks.lost import LostRanks
from instructgpt.models.load import Network
from instructgpt.models.shards import layers_apart
from instructgpt.models.trained import FrozenTrunk
from instructgpt.modules.ppo import PPOModule
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.modules.sharding import sharding_of
from instructgpt.rewards.learned import LearnedReward
from instructgpt.rollout.updates import Batches
from instructgpt.types import UserError

LAYERS = 6


def is_whole(layer):
    return not any(isinstance(weight, DTensor) for weight in layer.parameters())


class Watch(Callback):
    """Counts whole layers, and those with a whole gradient, each time that a layer is computed."""

    def __init__(self):
        self.forward, self.backward, self.gradients = set(), set(), set()
        self.between = []

    def on_train_start(self, trainer, module):
        self.layers = layers_apart(module.policy)
        for layer in self.layers:
            layer.mlp.register_forward_hook(self.note)

    def note(self, _module, _inputs, output):
        if not output.requires_grad:
            return
        self.forward.add(sum(map(is_whole, self.layers)))
        output.register_hook(self.note_backward)

    def note_backward(self, _gradient):
        there = [layer for layer in self.layers if is_whole(layer)]
        self.backward.add(len(there))
        self.gradients.add(
            sum(any(p.grad is not None for p in layer.parameters()) for layer in there)
        )

    def on_train_batch_end(self, *_):
        self.between.append(sum(map(is_whole, self.layers)))


def test_a_layer_or_two_are_whole_in_an_update(fit, demonstration_data, gpt2):
    def train():
        network = Network(max_tokens=30)
        options = {"optimizer": sgd, "schedule": Constant(), "network": network}
        module = SFTModule(architecture=gpt2 | {"n_layer": LAYERS}, dropout=0.0, **options)
        watch = Watch()
        asked = {"max_epochs": 1, "limit_val_batches": 1.0, "accumulate_grad_batches": 2}
        fit(
            module,
            demonstration_data(batch_size=4),
            strategy="fsdp2",
            devices=2,
            callbacks=[watch],
            **asked,
        )
        return watch.forward, watch.backward, watch.gradients, set(watch.between)

    for forward, backward, gradients, between in run_processes(train):
        assert forward == {1}
        assert backward == {1}  # of the next one a copy is on its way
        assert max(gradients) <= 1
        assert between == {0}


def test_one_network_is_whole_in_a_rollout(fit, prompt_data, policy_artefact, reward_artefact):
    """That samples, and then that scores; all others are at a layer at most."""
    found = set()

    class Roll(Callback):
        def on_train_start(self, trainer, module):
            named = {"policy": module.policy, "reference": module.frozen.reference}
            named |= {"value": module.value_model, "reward": module.frozen.reward.model}
            layers = {name: layers_apart(network) for name, network in named.items()}

            def note(name, *_):
                whole = tuple(n for n, own in layers.items() if sum(map(is_whole, own)) > 1)
                found.add((name, *whole))

            for name, own in layers.items():
                own[0].register_forward_hook(lambda *_, name=name: note(name))
            assert len(sharding_of(trainer).networks) == len(named)

    def train():
        module = PPOModule(
            init_from=policy_artefact,
            reward=LearnedReward(reward_artefact),
            optimizer=sgd,
            batches=Batches(8, 4),
            algorithm=PPO(epochs=1),
            network=Network(max_tokens=37),
        )
        asked = {"max_epochs": 1, "limit_val_batches": 1.0}
        fit(module, prompt_data(), strategy="fsdp2", devices=2, callbacks=[Roll()], **asked)
        return found

    for seen in run_processes(train):
        alone = {("policy",), ("value",), ("reference",)}
        assert seen == {("policy", "policy"), ("reward", "reward")} | alone


def test_a_frozen_trunk_is_not_spread(fit, comparison_data, policy_artefact):
    def train():
        module = RewardModule(init_from=policy_artefact, trained=FrozenTrunk())
        with pytest.raises(UserError, match=r"must not be fsdp2 with --model\.trained Fr"):
            fit(module, comparison_data(), max_epochs=1, strategy="fsdp2", devices=2)

    run_processes(train)


class Failing(Callback):
    """Fails on one rank, in a layer in the second step, forward or backward."""

    def __init__(self, where):
        self.where = where

    def on_train_start(self, trainer, module):
        def fail(*_):
            if trainer.global_step == 1:
                raise RuntimeError("out of memory")

        def hook(_module, _inputs, output):
            if self.where == "backward" and output.requires_grad:
                output.register_hook(fail)
            elif output.requires_grad:
                fail()

        if trainer.global_rank == 1:
            layers_apart(module.policy)[3].mlp.register_forward_hook(hook)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_an_error_of_one_rank_in_a_layer_ends_the_others(fit, demonstration_data, gpt2, where):
    def train():
        options = {"optimizer": sgd, "schedule": Constant()}
        module = SFTModule(architecture=gpt2 | {"n_layer": LAYERS}, dropout=0.0, **options)
        spread = {"strategy": "fsdp2", "devices": 2, "callbacks": [Failing(where), LostRanks()]}
        try:
            fit(module, demonstration_data(batch_size=4), max_epochs=1, **spread)
        except (RuntimeError, UserError) as error:
            return f"{type(error).__name__}: {error}"

    said, own = run_processes(train)
    assert own == "RuntimeError: out of memory"
    assert said == "RunFailedError: rank 1 failed in step 2: RuntimeError: out of memory"
