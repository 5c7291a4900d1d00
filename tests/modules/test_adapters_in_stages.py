"""LoRA and prefix through all stages; gradient checkpointing changes memory only."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from descent import sgd, weights
from safetensors.torch import load_file
from tiny_models import flat

from instructgpt.algorithms.ppo import PPO
from instructgpt.algorithms.schedule import Constant
from instructgpt.models.flat import hidden_states
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.trained import LoRA, Prefix
from instructgpt.modules.networks import Value
from instructgpt.modules.ppo import PPOModule
from instructgpt.modules.preference import PreferenceModule
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.rewards.learned import LearnedReward
from instructgpt.rewards.rules import CountReward
from instructgpt.rollout.updates import Batches

ADAPTERS = [LoRA(rank=2), Prefix(tokens=3)]
COMMON = {"optimizer": sgd, "schedule": Constant()}
SMALL = {"batches": Batches(8, 4), "algorithm": PPO(missing_eos_score=None)}


def base_of(module):
    """Weights of the network under the adapter."""
    return torch.cat(
        [p.detach().flatten() for n, p in module.named_parameters() if not p.requires_grad]
    )


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_sft(fit, demonstration_data, policy_artefact, tmp_path, adapter):
    module = SFTModule(
        init_from=policy_artefact, trained=adapter, validation_prompts=0, dropout=0.0, **COMMON
    )
    module_start = load_policy(policy_artefact, None, Network(), None)
    fit(module, demonstration_data(), max_epochs=1)
    assert float(base_of(module.policy).abs().sum()) == pytest.approx(
        float(weights(module_start).abs().sum()), rel=1e-6
    )
    module.export(tmp_path / "export", config={}, metrics={})
    tokens, mask = torch.tensor([[3, 4, 5]]), torch.ones(1, 3, dtype=torch.bool)
    back = load_policy(str(tmp_path / "export"), None, Network(), None)
    from instructgpt.models.forward import run

    with torch.no_grad():
        expected = run(module.policy.eval(), tokens, mask).logits
        assert not torch.allclose(expected, run(module.policy, tokens, mask, adapter=False).logits)
        torch.testing.assert_close(
            run(back.eval(), tokens, mask).logits, expected, atol=1e-4, rtol=1e-4
        )


def test_sft_says_by_how_much_the_adapter_lowers_the_loss(fit, demonstration_data, policy_artefact):
    """Against the loss, on the same rows, of a run that trains nothing."""
    seen = {}
    for lr in (0.0, 0.1):
        module = SFTModule(
            init_from=policy_artefact,
            trained=LoRA(rank=2) if lr else None,
            validation_prompts=0,
            dropout=0.0,
            optimizer=partial(sgd, lr=lr),
            schedule=Constant(),
        )
        trainer = fit(module, demonstration_data(), max_epochs=1, limit_val_batches=1.0)
        seen[lr] = {name: float(value) for name, value in trainer.callback_metrics.items()}
    fall = seen[0.0]["val/loss"] - seen[0.1]["val/loss"]
    assert fall > 1e-3
    assert seen[0.1]["val/loss_fall"] == pytest.approx(fall, abs=1e-5)
    assert module.intervals["val/loss_fall"].low < fall < module.intervals["val/loss_fall"].high
    assert "val/loss_fall" not in seen[0.0]


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_reward_trains_and_keeps_the_head(fit, comparison_data, policy_artefact, tmp_path, adapter):
    module = RewardModule(init_from=policy_artefact, trained=adapter, **COMMON)
    fit(module, comparison_data(), max_epochs=1)
    module.export(tmp_path / "export", config={}, metrics={})
    back = load_scalar(str(tmp_path / "export"), None, Network(), None, head="stored").eval()
    tokens, mask = torch.tensor([[3, 4, 5]]), torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(
            back.score(flat(tokens, mask)),
            module.model.eval().score(flat(tokens, mask)),
            atol=1e-4,
            rtol=1e-4,
        )


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("value", ["separate", "shared"])
def test_ppo_starts_at_ratio_one_and_exports(
    fit, prompt_data, policy_artefact, reward_artefact, tmp_path, adapter, value
):
    module = PPOModule(
        init_from=policy_artefact,
        reward=LearnedReward(reward_artefact),
        trained=adapter,
        value=Value(value),
        **COMMON,
        **SMALL,
    )
    fit(module, prompt_data(), max_epochs=1)
    assert module.phase.metrics["ppo/first_ratio_error"] < 1e-6
    # LoRA starts as the policy itself; a prefix is a change from the start.
    starts_as_reference = isinstance(adapter, LoRA)
    assert (abs(module.phase.metrics["ppo/kl"]) < 1e-4) is starts_as_reference
    module.export(tmp_path / "export", config={}, metrics={})
    load_policy(str(tmp_path / "export"), None, Network(), None)
    if value == "shared":
        again = PPOModule(
            init_from=str(tmp_path / "export"),
            reward=CountReward(text="e"),
            value=Value(value),
            **SMALL,
        )
        fit(again, prompt_data(), max_steps=1, limit_train_batches=1)
        kept = load_file(tmp_path / "export" / "value_head.safetensors")
        assert torch.equal(kept["weight"], module.value_head.weight)
        assert float(again.value_head.weight.abs().sum()) > 0


def checkpointed(stage, source, reward, network):
    """A stage of each loop; with LoRA, and on packed weights."""
    lora = {"trained": LoRA(rank=2)} if "lora" in stage else {}
    if "packed" in stage:
        network = replace(network, quantization="nf4")
    own = {**COMMON, **lora, "network": network, "init_from": source}
    if stage.startswith("sft"):
        return SFTModule(validation_prompts=0, dropout=0.0, **own)
    if stage == "reward":
        return RewardModule(**own)
    if stage.startswith("dpo"):
        return PreferenceModule(validation_prompts=0, **own)
    return PPOModule(reward=LearnedReward(reward), **own, **SMALL)


@pytest.mark.parametrize(
    "stage", ["sft", "reward", "dpo lora", "ppo", "ppo lora", "sft lora packed"]
)
def test_gradient_checkpointing_changes_nothing(
    fit,
    prompt_data,
    comparison_data,
    demonstration_data,
    policy_artefact,
    reward_artefact,
    stage,
):
    kinds = {"sft": demonstration_data, "ppo": prompt_data}
    make_data = kinds.get(stage[:3], comparison_data)
    results, kept = [], []
    for checkpointing in (False, True):
        network = Network(gradient_checkpointing=checkpointing)
        module = checkpointed(stage, policy_artefact, reward_artefact, network)
        data = make_data() if stage.startswith("ppo") else make_data(batch_size=4)
        fit(module, data, max_epochs=1)
        results.append(trained_weights(module))
        trunk = module.model.trunk if stage == "reward" else module.policy
        kept.append(kept_for_backward(trunk))
    torch.testing.assert_close(results[1], results[0], atol=1e-6, rtol=1e-5)
    assert kept[1] < kept[0] / 2


def trained_weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])


def kept_for_backward(network):
    """Bytes that autograd keeps of layers; of those it computes again, nothing."""
    owned = {p.untyped_storage().data_ptr() for p in network.parameters()}
    seen = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    rows = flat(torch.ones(2, 20, dtype=torch.long), torch.ones(2, 20, dtype=torch.bool))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden_states(network.train(), rows)
    return sum(size for size, _ in seen.values())
