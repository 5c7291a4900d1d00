"""What ``--trainer.precision bf16-true`` must not change: tables, noise, metrics, averages."""

import pytest
import torch
from descent import half_precision, sgd, weights
from lightning.pytorch import Callback
from small_ppo import make as make_ppo
from small_preference import make as make_preference

from instructgpt.algorithms.ppo import PPO
from instructgpt.algorithms.schedule import Constant
from instructgpt.models.artefact import save_policy
from instructgpt.models.load import Network, load_policy
from instructgpt.models.template import get_template
from instructgpt.modules.ppo import PPOModule
from instructgpt.modules.pretraining import Pretraining
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.rewards.learned import LearnedReward
from instructgpt.rewards.mixture import MixtureReward
from instructgpt.rewards.rules import CountReward
from instructgpt.rollout.ema import WeightAverage
from instructgpt.rollout.updates import Batches
from instructgpt.seeds import uniforms


def test_noise_is_float32_whatever_the_default():
    ids = torch.arange(40)
    before = uniforms(1, 2, ids, 30)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(uniforms(1, 2, ids, 30), before)
    finally:
        torch.set_default_dtype(torch.float32)
    assert before.dtype == torch.float32
    assert len(before.flatten().unique()) > 1190


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_ppo_validates_with_any_reward(
    fit, prompt_data, policy_artefact, reward_artefact, precision
):
    reward = MixtureReward([LearnedReward(reward_artefact), CountReward(text="e")], [1.0, 0.5])
    module = PPOModule(
        init_from=policy_artefact,
        reward=reward,
        optimizer=sgd,
        schedule=Constant(),
        batches=Batches(8, 4),
        algorithm=PPO(missing_eos_score=None),
    )
    trainer = fit(module, prompt_data(), max_epochs=1, limit_val_batches=1.0, precision=precision)
    samples = [s for s in module.samples if s["kind"] == "sampled"]
    mean = sum(s["score"] for s in samples) / len(samples)
    assert float(trainer.callback_metrics["val/score"]) == pytest.approx(mean, rel=1e-5)


def test_rotary_frequencies_stay_exact(
    fit, demonstration_data, policy_artefact, tiny_tokenizer, make_architecture, tmp_path
):
    """The exported network is the trained one also at a far position."""
    llama = {**make_architecture("llama"), "max_position_embeddings": 4096}
    model = load_policy(None, llama, Network(), tiny_tokenizer)
    own = {"stage": "sft", "parent": None, "config": {}, "metrics": {}}
    save_policy(model, tiny_tokenizer, tmp_path / "start", template=get_template("plain"), **own)
    module = SFTModule(
        init_from=str(tmp_path / "start"),
        dropout=0.0,
        optimizer=sgd,
        schedule=Constant(),
        validation_prompts=0,
    )
    fit(module, demonstration_data(), max_steps=1, precision="bf16-true")
    module.export(tmp_path / "export", config={}, metrics={})
    back = load_policy(str(tmp_path / "export"), None, Network(dtype="bfloat16"), None).eval()
    tokens = torch.arange(2, 12)[None]
    far = torch.arange(3000, 3010)[None]
    with torch.no_grad():
        trained = module.policy.eval()(tokens, position_ids=far).logits
        assert torch.equal(back(tokens, position_ids=far).logits, trained)


def test_validation_means_are_float32(fit, demonstration_data, policy_artefact):
    module = SFTModule(init_from=policy_artefact, optimizer=sgd, validation_prompts=0)
    fit(module, demonstration_data(), max_steps=1, precision="bf16-true")
    module.val_loss.update(1.5, 37)
    for _ in range(1000):
        module.val_loss.update(1.5, 37)
    assert module.val_loss.compute().item() == pytest.approx(1.5)


def test_averages_move_in_half_precision():
    network = torch.nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    torch.nn.init.ones_(network.weight)
    average = WeightAverage(network, decay=0.992)
    torch.nn.init.constant_(network.weight, 1.25)
    for _ in range(100):
        average.update(network)
    # by hand: 1.25 - 0.25 * 0.992 ** 100 = 1.138
    assert average.weights["weight"].item() == pytest.approx(1.138, abs=1e-3)
    with average.applied(network):
        assert network.weight.item() == pytest.approx(1.138, abs=1e-2)
    assert network.weight.item() == 1.25


def test_offset_is_exact_in_half_precision(fit, comparison_data, policy_artefact, files):
    module = RewardModule(init_from=policy_artefact, optimizer=sgd, schedule=Constant())
    data = comparison_data(demonstrations=files["demonstrations"])
    fit(module, data, max_steps=1, precision="bf16-true")
    module.finalize()
    module.model.eval()
    with torch.no_grad():
        batches = list(data.demonstration_dataloader())
        scores = torch.cat([module.model.score(b.rows) for b in batches])
    assert abs(scores.mean().item()) < 1e-5


@pytest.mark.parametrize("loop", ["sft", "reward", "preference", "ppo"])
def test_a_loss_scale_scales_every_piece(
    fit, demonstration_data, comparison_data, prompt_data, files, policy_artefact, loop
):
    """One that was not would weigh a thousandth; ``16-mixed``, whose scaler works on CPUs too."""
    common = {"optimizer": sgd, "schedule": Constant()}

    def build(max_tokens):
        options = {"init_from": policy_artefact, "network": Network(max_tokens=max_tokens)}
        if loop == "reward":
            return RewardModule(**common, **options), comparison_data(batch_size=8)
        if loop == "preference":
            return make_preference(policy_artefact, network=options["network"]), comparison_data(
                batch_size=8
            )
        if loop == "sft":
            module = SFTModule(**common, **options, dropout=0.0, validation_prompts=0)
            return module, demonstration_data(batch_size=8)
        module = make_ppo(
            policy_artefact,
            network=options["network"],
            batches=Batches(8, 8),
            pretraining=Pretraining(0.5, 1),
        )
        return module, prompt_data(pretraining=files["text"], pretraining_block_size=16)

    runs = []
    for max_tokens, scale in ((None, 1.0), (None, 1024.0), (30, 1024.0)):
        module, data = build(max_tokens)
        start = Start()
        how = {"max_steps": 1, "callbacks": [start], "plugins": [half_precision(scale)]}
        trainer = fit(module, data, **how)
        assert trainer.global_step == 1
        runs.append(weights(module) - start.weights)
    exact, *scaled = runs
    assert exact.norm() > 1e-3
    for found in scaled:
        assert (found - exact).norm() < 0.02 * exact.norm()


class Start(Callback):
    """Keeps the weights as they were before the first step."""

    def on_train_start(self, trainer, pl_module):
        self.weights = weights(pl_module)
