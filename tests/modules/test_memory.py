"""The memory of the plan: worked numbers, autograd as the oracle, and what the lines name."""

import re

import pytest
import torch
from small_ppo import make

from instructgpt.callbacks.plan import PlanPrinter
from instructgpt.models.load import Network, load_policy
from instructgpt.modules.memory import (
    Held,
    Need,
    Shape,
    activation_bytes,
    cache_bytes,
    held,
    logit_bytes,
    peak_bytes,
    shape_of,
)
from instructgpt.modules.preference import PreferenceModule
from instructgpt.modules.preference_memory import largest_piece, update_needs
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.rewards.learned import LearnedReward

SMALL = Shape(2, 4, 4, 16, 1, 10, 6, 5, False, False)
LLAMA = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4}
LLAMA |= {"num_hidden_layers": 3, "max_position_embeddings": 128}


def test_worked_numbers():
    # a layer keeps 6*4 + 2*4 + 5*16 = 112 numbers a token
    assert activation_bytes(SMALL, 3, 3, 4) == 2 * 3 * 112 * 4
    # with eager attention, a weight for each of 3 tokens, too
    assert activation_bytes(SMALL._replace(eager=True), 3, 3, 4) == 2 * 3 * 115 * 4
    # recomputed: the inputs of 2 layers, and one layer at a time
    assert activation_bytes(SMALL._replace(recomputed=True), 3, 3, 2) == 3 * (2 * 4 + 112) * 2
    # keys and values of 2 layers, one of them twice
    assert cache_bytes(SMALL, 3, 4) == 3 * 2 * 3 * 4 * 4
    assert logit_bytes(SMALL, 3, 2.5) == 3 * 10 * 2.5 * 4


def test_ranked_responses_share_their_prompt(policy_artefact, tiny_tokenizer):
    """Batches of 4+2+1, 3+6 and 2+2 tokens, in forward passes of at most 13: 7 | 9, 4."""
    policy = load_policy(policy_artefact, None, Network(), tiny_tokenizer)
    batches = [[(4, [2, 1]), (3, [6]), (2, [2])]]
    activations, logits = update_needs(policy, batches, 13, "32-true")
    assert activations.bytes == activation_bytes(shape_of(policy), 13, 9, 4)
    # 6 + 2 response tokens: logits, their log-softmax, and its source
    assert logits.bytes == 3 * 8 * 290 * 4
    assert largest_piece(batches, None) == 20
    assert largest_piece(batches, 8) == 9  # a prompt is never cut


def test_the_peak_is_that_of_the_largest_part():
    trained = [Held(10, 10, 40, 40), Held(5, 0, 20, 0)]  # 80 bytes of moments
    needs = [Need("sampling", "KV cache", 90), Need("update", "a", 50), Need("update", "b", 30)]
    always = 40 + 20 + 80 + 7
    assert peak_bytes(trained, 7, needs, False, 0.0) == always + 90
    assert peak_bytes(trained, 7, needs, True, 0.0) == always + 50 + 30 + 40
    assert peak_bytes(trained, 7, needs[1:], False, 0.5) == always + 75 + 45
    assert peak_bytes(trained, 7, [], False, 0.0) == always + 40, "gradients at the least"


@pytest.mark.parametrize(
    ("architecture", "dropout", "kernel"),
    [
        ({"model_type": "gpt2", "n_layer": 3, "n_embd": 64, "n_head": 4}, 0.0, "sdpa"),
        ({"model_type": "gpt2", "n_layer": 3, "n_embd": 64, "n_head": 4}, 0.1, "sdpa"),
        ({"model_type": "gpt2", "n_layer": 3, "n_embd": 64, "n_head": 4}, 0.0, "eager"),
        ({"model_type": "llama", "num_key_value_heads": 2, **LLAMA}, 0.0, "sdpa"),
        ({"model_type": "qwen2", "num_key_value_heads": 4, **LLAMA}, 0.0, "sdpa"),
        ({"model_type": "gpt_neox", **LLAMA}, 0.0, "sdpa"),
    ],
)
def test_activations_are_what_autograd_keeps(tiny_tokenizer, architecture, dropout, kernel):
    """Of 3 layers, without what comes before and behind them."""
    rows, length = 4, 32
    kept = []
    for layers in (1, 4):
        name = "n_layer" if "n_layer" in architecture else "num_hidden_layers"
        wanted = {**architecture, name: layers}
        network = Network(attention=kernel)
        model = load_policy(None, wanted, network, tiny_tokenizer, dropout).train()
        ours = {p.untyped_storage().data_ptr() for p in model.parameters()}
        seen = {}

        def keep(tensor, seen=seen, ours=ours):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in ours:
                seen[storage.data_ptr()] = tensor
            return tensor

        tokens = torch.zeros(rows, length, dtype=torch.long)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(tokens, attention_mask=torch.ones_like(tokens))
        kept.append(sum(tensor.untyped_storage().nbytes() for tensor in seen.values()))
    shape = shape_of(model)._replace(layers=3)
    estimate = activation_bytes(shape, rows * length, length, 4)
    assert estimate == pytest.approx(kept[1] - kept[0], rel=0.1)


def plan_of(module, data, fit, capsys):
    """Lines of the printed plan, by name."""
    fit(module, data, callbacks=[PlanPrinter()], max_steps=1)
    lines = re.findall(r"^  (\S.*?)  +(\S.*)$", capsys.readouterr().out, re.MULTILINE)
    return dict(lines)


def test_ppo_names_all_that_it_holds(policy_artefact, reward_artefact, prompt_data, fit, capsys):
    module = make(policy_artefact, LearnedReward(reward_artefact))
    plan = plan_of(module, prompt_data(), fit, capsys)
    for name in ("reference, frozen", "reward, frozen", "average of the policy, frozen"):
        assert re.fullmatch(r"\d+ MiB", plan[name])
    assert re.fullmatch(r"KV cache \d+ MiB, logits \d+ MiB", plan["memory of sampling"])
    assert re.fullmatch(r"logits \d+ MiB", plan["memory of scoring"])
    assert re.fullmatch(r"activations \d+ MiB, logits \d+ MiB", plan["memory of update"])
    assert "an estimate" in plan["memory in all"]
    sizes = module.memory().frozen
    weights = held(module.policy).weights
    assert sizes["reference"] == sizes["average of the policy"] == weights
    assert sizes["reward"] == sum(p.numel() * 4 for p in module.frozen.reward.model.parameters())
    prompt = max(len(row.tokens) for row in module.data.train_rows)
    cache = next(need for need in module.memory().needs if need.what == "KV cache")
    # 8 rollouts of a prompt and 6 tokens; 2 layers and one again, of keys and values of 16 floats
    assert cache.bytes == 3 * 2 * 8 * (prompt + 6) * 16 * 4


def test_supervised_stages_name_activations_and_logits(
    gpt2, demonstration_data, comparison_data, policy_artefact, fit, capsys
):
    module = SFTModule(architecture=gpt2, validation_prompts=0)
    plan = plan_of(module, demonstration_data(batch_size=4), fit, capsys)
    assert re.fullmatch(r"activations \d+ MiB, logits \d+ MiB", plan["memory of update"])
    reward = RewardModule(init_from=policy_artefact)
    plan = plan_of(reward, comparison_data(batch_size=4), fit, capsys)
    assert re.fullmatch(r"activations \d+ MiB", plan["memory of update"])
    assert "about" in plan["memory in all"]
    preference = PreferenceModule(init_from=policy_artefact, validation_prompts=0)
    plan = plan_of(preference, comparison_data(batch_size=4), fit, capsys)
    assert re.fullmatch(r"activations \d+ MiB, logits \d+ MiB", plan["memory of update"])
    assert preference.memory().frozen == {"reference": held(preference.policy).weights}
    assert re.fullmatch(r"\d+ MiB", plan["reference, frozen"])
