"""The memory of the plan: worked numbers, autograd as the oracle, and what the lines name."""

import re

import pytest
import torch
from small_ppo import make

from instructgpt.callbacks.plan import PlanPrinter
from instructgpt.functional.layout import Layout
from instructgpt.models.flat import hidden_states
from instructgpt.models.load import Network, load_policy
from instructgpt.models.output_head import FORM
from instructgpt.modules.held import Held, held
from instructgpt.modules.memory import (
    Need,
    activation_bytes,
    cache_bytes,
    half_bytes,
    head_bytes,
    logit_bytes,
    peak_bytes,
    update_needs,
)
from instructgpt.modules.piece_sizes import Size, largest_piece
from instructgpt.modules.preference import PreferenceModule
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.modules.shapes import Shape, shape_of
from instructgpt.rewards.learned import LearnedReward
from instructgpt.types import FlatRows

SMALL = Shape(2, 4, 4, 16, 1, 10, 6, 5, False, False)
LLAMA = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4}
LLAMA |= {"num_hidden_layers": 3, "max_position_embeddings": 128}


def test_worked_numbers():
    three = Size.document(3, 2)
    # a layer keeps 6*4 + 2*4 + 5*16 = 112 numbers a token
    assert activation_bytes(SMALL, three, 4) == 2 * 3 * 112 * 4
    # with eager attention, a weight for each of 3 tokens, too
    assert activation_bytes(SMALL._replace(eager=True), three, 4) == 2 * 3 * 115 * 4
    # recomputed: the inputs of 2 layers, and one layer at a time
    assert activation_bytes(SMALL._replace(recomputed=True), three, 2) == 3 * (2 * 4 + 112) * 2
    # a b | c | d: attention has abc and abd, that is 2*4 + 2*4 numbers for each of 6 tokens
    two = Size.shared(2, [1, 1])
    assert activation_bytes(SMALL, two, 4) == 2 * (4 * 96 + 6 * 16) * 4
    # keys and values of 2 layers
    assert cache_bytes(SMALL, 3, 4) == 2 * 2 * 3 * 4 * 4
    assert logit_bytes(SMALL, 3, 2.5) == 3 * 10 * 2.5 * 4


def test_the_largest_pieces_of_ranked_responses():
    """Batches of 4+2+1, 3+6 and 2+2 tokens, in forward passes of at most 13: 7 | 9, 4."""
    batches = [[Size.shared(4, [2, 1]), Size.shared(3, [6]), Size.shared(2, [2])]]
    # 9 + 4 tokens, 8 of them of responses; rows of 6, 5 | 9, 4
    assert largest_piece(batches, 13) == (Size(13, 13, 9, 8), True)
    assert largest_piece(batches, None) == (Size(20, 24, 9, 11), False)
    assert largest_piece(batches, 8).piece.tokens == 9, "a prompt is never cut"
    assert largest_piece(batches, None, max_rows=2).piece.tokens == 16


def test_a_head_has_logits_of_a_tile_of_a_few_places_or_of_all(policy_artefact, tiny_tokenizer):
    policy = load_policy(policy_artefact, None, Network(), tiny_tokenizer)
    ids, width = policy.get_output_embeddings().weight.shape
    piece = Size.document(900, 700)
    # 512 places at a time, with what becomes of them; the gradient of the weight
    assert head_bytes(policy, piece, True, "cpu") == 4 * (2 * 512 * ids + ids * width)
    assert head_bytes(policy, piece, True, "cuda") == 4 * (2 * 700 * ids + ids * width)
    policy.requires_grad_(False)
    assert head_bytes(policy, piece, True, "cpu") == 4 * 2 * 512 * ids
    setattr(policy, FORM, None)  # as of a network whose logits are something else
    assert head_bytes(policy, piece, True, "cpu") == 4 * 3 * 700 * ids
    needs = update_needs(policy, piece, "32-true", "cpu")
    assert [need.what for need in needs] == ["activations", "head"]


def test_the_peak_is_that_of_the_largest_part():
    trained = [Held(10, 10, 40, 40), Held(5, 0, 20, 0)]  # 80 bytes of moments
    needs = [Need("sampling", "KV cache", 90), Need("update", "a", 50), Need("update", "b", 30)]
    always, frozen = 40 + 20 + 80 + 7, {"reward": 7}
    assert peak_bytes(trained, frozen, needs, False) == always + 90
    assert peak_bytes(trained, frozen, needs, True) == always + 50 + 30 + 40
    assert peak_bytes(trained, frozen, [], False) == always + 40, "gradients at the least"


def test_mixed_precision_keeps_copies_of_the_weights(tiny_tokenizer):
    """Autograd as the oracle: what is kept of a forward pass and has the shape of a weight."""
    wanted = {"model_type": "llama", "num_key_value_heads": 2, **LLAMA}
    model = load_policy(None, wanted, Network(), tiny_tokenizer, 0.0).train()
    layers = [p for name, p in model.named_parameters() if name.endswith("proj.weight")]
    shapes, seen, layout = {tuple(sorted(p.shape)) for p in layers}, {}, Layout.shared([30], [[9]])

    def keep(tensor):
        if tensor.dtype == torch.bfloat16 and tuple(sorted(tensor.shape)) in shapes:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    rows = FlatRows(torch.zeros(layout.tokens, dtype=torch.long), layout)
    hidden_states(model, rows)
    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        hidden_states(model, rows)
    kept = sum(tensor.untyped_storage().nbytes() for tensor in seen.values())
    assert half_bytes(model, "bf16-mixed") == kept > 0
    assert half_bytes(model, "32-true") == 0


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
    """Of 3 layers, without what comes before and behind them; the first prompt is shared."""
    layout, two = Layout.shared([32, 24], [[8, 8], [16]]), [[32, [8, 8]], [24, [16]]]
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

        rows = FlatRows(torch.zeros(layout.tokens, dtype=torch.long), layout)
        hidden_states(model, rows)  # the proof that it reads flat rows
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden_states(model, rows)
        kept.append(sum(tensor.untyped_storage().nbytes() for tensor in seen.values()))
    shape = shape_of(model)._replace(layers=3)
    (piece, _) = largest_piece([[Size.shared(*sizes) for sizes in two]], None)
    estimate = activation_bytes(shape, piece, 4)
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
    assert re.fullmatch(r"head \d+ MiB", plan["memory of scoring"])
    update = r"activations \d+ MiB, head \d+ MiB, activations of the value model \d+ MiB"
    assert re.fullmatch(update, plan["memory of update"])
    assert "at the peak" in plan["memory in all"]
    sizes = module.memory().frozen
    weights = held(module.policy).weights
    assert sizes["reference"] == sizes["average of the policy"] == weights
    assert sizes["reward"] == sum(p.numel() * 4 for p in module.frozen.reward.model.parameters())
    longest = max(module.data.train_rows.lengths) + 6
    cache = next(need for need in module.memory().needs if need.what == "KV cache")
    # 8 slots for the longest prompt and 6 tokens; 2 layers of keys and values of 16 floats
    assert cache.bytes == 2 * 2 * 8 * longest * 16 * 4


def test_supervised_stages_name_activations_and_logits(
    gpt2, demonstration_data, comparison_data, policy_artefact, fit, capsys
):
    module = SFTModule(architecture=gpt2, validation_prompts=0)
    plan = plan_of(module, demonstration_data(batch_size=4), fit, capsys)
    assert re.fullmatch(r"activations \d+ MiB, head \d+ MiB", plan["memory of update"])
    reward = RewardModule(init_from=policy_artefact)
    plan = plan_of(reward, comparison_data(batch_size=4), fit, capsys)
    assert re.fullmatch(r"activations \d+ MiB", plan["memory of update"])
    assert "about" in plan["memory in all"]
    preference = PreferenceModule(init_from=policy_artefact, validation_prompts=0)
    plan = plan_of(preference, comparison_data(batch_size=4), fit, capsys)
    assert re.fullmatch(r"activations \d+ MiB, head \d+ MiB", plan["memory of update"])
    assert preference.memory().frozen == {"reference": held(preference.policy).weights}
    assert re.fullmatch(r"\d+ MiB", plan["reference, frozen"])
