"""Frozen networks in 8 and 4 bits through the stages; with an adapter there is no second copy."""

import gc

import pytest
import torch
from descent import sgd
from safetensors.torch import load_file
from small_ppo import make
from small_preference import make as make_preference
from transformers import GPT2LMHeadModel, GPT2Model

from instructgpt.algorithms.schedule import Constant
from instructgpt.models.load import Network, load_policy
from instructgpt.models.quantized import is_quantized
from instructgpt.models.template import get_template
from instructgpt.models.tokenizer import load_tokenizer
from instructgpt.models.trained import LastLayers, LoRA, attach
from instructgpt.modules.held import held
from instructgpt.modules.networks import Value, load_reference
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.rewards.learned import LearnedReward
from instructgpt.types import Prompt, Sample, UserError

NF4 = Network(quantization="nf4")


def alive(kind):
    """Networks of a class that somebody holds."""
    gc.collect()
    return {id(one) for one in gc.get_objects() if type(one) is kind}


def test_with_an_adapter_the_reference_is_no_second_copy(
    fit, prompt_data, comparison_data, policy_artefact
):
    """Of PPO with a critic: a policy, and the critic's own trunk; of DPO the policy alone."""
    policies, trunks = alive(GPT2LMHeadModel), alive(GPT2Model)
    module = make(policy_artefact, trained=LoRA(rank=2), ema_decay=None)
    fit(module, prompt_data(), max_epochs=1)
    assert len(alive(GPT2LMHeadModel) - policies) == 1
    assert len(alive(GPT2Model) - trunks) == 2, "inside the policy, and the critic's"
    assert "kl" in str(module.phase.metrics), "a reference was asked"
    about = dict(module.memory().shared)
    assert about["reference"] == "the policy with its adapter off, no copy"
    assert about["value"] == "a trunk of its own"
    del module
    module = make(policy_artefact, trained=LoRA(rank=2), value=Value("shared"), ema_decay=None)
    fit(module, prompt_data(), max_epochs=1)
    assert len(alive(GPT2Model) - trunks) == 1
    assert dict(module.memory().shared)["value"] == "a head on the policy's trunk"
    del module
    preference = make_preference(policy_artefact, trained=LoRA(rank=2))
    fit(preference, comparison_data(batch_size=4), max_steps=1)
    assert len(alive(GPT2LMHeadModel) - policies) == 1
    assert dict(preference.memory().shared)["reference"].startswith("the policy with")


@pytest.mark.parametrize("value", ["separate", "shared"])
def test_ppo_learns_beside_packed_weights(
    fit, prompt_data, policy_artefact, reward_artefact, tmp_path, value
):
    """The reference is the policy without its adapter, packed alike: their KL begins at 0."""
    reward = LearnedReward(reward_artefact, Network(quantization="int8"))
    options = {"trained": LoRA(rank=2), "value": Value(value, lr=0.1), "network": NF4}
    module = make(policy_artefact, reward, **options)
    fit(module, prompt_data(), max_epochs=1)
    assert is_quantized(module.policy)
    assert is_quantized(reward.model)
    assert module.phase.metrics["ppo/first_ratio_error"] == 0
    assert abs(module.phase.metrics["ppo/kl"]) < 1e-6
    module.export(tmp_path / "export", config={}, metrics={})
    saved = load_file(tmp_path / "export" / "model.safetensors")
    original = load_file(f"{policy_artefact}/model.safetensors")
    shapes = [{name: tensor.shape for name, tensor in one.items()} for one in (saved, original)]
    assert shapes[0] == shapes[1], "a plain model, as the one before"


def test_a_packed_reference_is_not_the_policy(fit, prompt_data, comparison_data, policy_artefact):
    said = "reference is held in int8 .* its KL to the policy is not 0 before the first step"
    module = make(policy_artefact, network=Network(quantization="int8"))
    with pytest.warns(UserWarning, match=said):
        fit(module, prompt_data(), max_epochs=1)
    assert not is_quantized(module.policy)
    assert is_quantized(module.frozen.reference)
    assert module.phase.metrics["ppo/first_ratio_error"] == 0
    assert 1e-7 < abs(module.phase.metrics["ppo/kl"]) < 0.05
    whole = held(module.policy).weights
    assert module.memory().frozen["reference"] < whole
    preference = make_preference(policy_artefact, network=Network(quantization="int8"))
    with pytest.warns(UserWarning, match=said):
        fit(preference, comparison_data(batch_size=4), max_steps=1)
    assert is_quantized(preference.reference.copy)


def test_a_packed_reward_model_scores_alike(reward_artefact):
    tokenizer, template = load_tokenizer(reward_artefact), get_template("plain")
    texts = ["say hello to the world", "one two three four", "and the world", "nine"]
    samples, asked = [], Prompt("to the world", [], "", {})
    for text in texts:
        prompt = template.encode_prompt(tokenizer, asked)
        response = template.encode_response(tokenizer, text)
        samples.append(Sample(asked, text, prompt, response, finished=True))
    scores, sizes = {}, {}
    for kind in (None, "int8", "nf4"):
        reward = LearnedReward(reward_artefact, Network(quantization=kind))
        reward.prepare(tokenizer, template, torch.device("cpu"))
        scores[kind] = reward.raw_scores(samples)
        sizes[kind] = held(reward.model).weights
    spread = scores[None].std()
    assert 0 < (scores["int8"] - scores[None]).abs().max() < 0.05 * spread
    assert 0 < (scores["nf4"] - scores[None]).abs().max() < 0.6 * spread
    assert sizes["nf4"] < sizes["int8"] < sizes[None]


def test_weights_that_learn_are_not_packed(policy_artefact):
    own = {"optimizer": sgd, "schedule": Constant(), "network": NF4}
    said = "model.network.quantization must be null where every weight learns .*, got nf4"
    for kind in (SFTModule, RewardModule):
        with pytest.raises(UserError, match=said):
            kind(init_from=policy_artefact, **own)


def test_beside_last_layers_what_is_packed_is_in_memory_once(policy_artefact):
    network = Network(quantization="int8")
    policy = attach(load_policy(policy_artefact, None, network), LastLayers(1), "int8")
    with pytest.warns(UserWarning, match="the reference is held in int8"):
        reference = load_reference(policy_artefact, network, None, policy)
    there = {weight.data_ptr() for weight in policy.parameters()}
    own = {n for n, weight in reference.named_parameters() if weight.data_ptr() not in there}
    assert is_quantized(reference.transformer.h[0])
    assert own
    assert all(".h.1." in name or ".ln_f." in name for name in own)
