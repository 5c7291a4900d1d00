"""Networks that start on the meta device are those that are loaded at once, bit for bit."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_decoders import build

from instructgpt.models.digest import weights_digest
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.meta_start import StartTogether, read, starting, waiting
from instructgpt.models.trained import LoRA, Prefix, attach
from instructgpt.types import UserError

CPU = torch.device("cpu")


def alone():
    return StartTogether(rank=0, place=0, places=1, gather=lambda own: [own])


def state(network):
    """All of a network: what is saved, tables, what is trained, and what is drawn next."""
    tensors = {**network.state_dict(), **dict(network.named_buffers())}
    learns = {name: p.requires_grad for name, p in network.named_parameters(remove_duplicate=False)}
    return tensors, learns, torch.get_rng_state()


def assert_same(make):
    """Compare what is made at once with what starts empty; return the names that were read."""
    torch.manual_seed(3)
    tensors, learns, drawn = state(whole := make())
    torch.manual_seed(3)
    start = alone()
    with starting(start):
        network = make()
        digest = weights_digest(network)
        network.to(CPU)  # moves nothing
    assert len(start.built) == 1
    absent = waiting(network)
    names = {name for name, p in network.named_parameters(remove_duplicate=False) if p.is_meta}
    assert digest == weights_digest(whole)
    read(absent, CPU)
    assert not waiting(network)
    found, found_learns, found_drawn = state(network)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    assert (learns, whole.training) == (found_learns, network.training)
    assert len(list(whole.parameters())) == len(list(network.parameters()))  # tied ones are one
    assert torch.equal(drawn, found_drawn)
    return names


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3", "gemma2", "phi", "bloom", "shift_gpt"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_policy(tmp_path, kind, dtype):
    """Tied weights and rotary tables among them; in several files, where there are several."""
    size = "20KB" if dtype == "float32" else "50GB"
    build(kind).save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (dtype == "float32")
    assert assert_same(lambda: load_policy(str(tmp_path), None, Network(dtype=dtype)))


@pytest.mark.parametrize("trained", [LoRA(rank=2), Prefix(tokens=3)])
def test_new_weights_are_drawn_as_ever(tmp_path, trained):
    build("llama").save_pretrained(tmp_path)
    names = assert_same(lambda: attach(load_policy(str(tmp_path), None, Network()), trained))
    assert not any("lora_" in name or "prompt" in name for name in names)


def test_scores(tmp_path, reward_artefact, policy_artefact):
    """A head of the file, and a new one on the trunk of a policy, whose names have a prefix."""
    names = assert_same(lambda: load_scalar(reward_artefact, None, Network(), None, "stored"))
    assert "head.weight" in names
    names = assert_same(lambda: load_scalar(policy_artefact, None, Network(), None, "new"))
    assert "head.weight" not in names


@pytest.mark.parametrize(
    ("kind", "network", "reason"),
    [
        ("mixtral", {}, "transformers changes weights of 'mixtral' as it loads them"),
        ("mamba", {}, "'mamba' draws numbers as it is loaded"),
        ("llama", {"quantization": "int8"}, "network.quantization packs whole layers"),
        ("llama", {"trust_remote_code": True}, "network.trust_remote_code lets it load itself"),
    ],
)
def test_what_cannot_is_whole_and_says_why(tmp_path, capsys, kind, network, reason):
    build(kind).save_pretrained(tmp_path)
    with starting(start := alone()):
        policy = load_policy(str(tmp_path), None, Network(**network))
    assert not start.built
    assert not any(weight.is_meta for weight in policy.parameters())
    out = capsys.readouterr().out
    assert out == f"'{tmp_path}': every process first has all of it, because {reason}\n"


def test_what_is_missing_is_said_by_who_loads_it(tmp_path, capsys):
    build("llama").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with (
        starting(alone()),
        pytest.raises(UserError, match=r"1 are missing, e.g. model.norm.weight"),
    ):
        load_policy(str(tmp_path), None, Network())
    assert "its file has no 'model.norm.weight' of the right shape" in capsys.readouterr().out


def test_every_process_looks_at_some_and_all_hear_what_is_wrong(tmp_path):
    build("llama").save_pretrained(tmp_path)
    seen = []

    def two_machines(own):
        """The other one has other numbers in what this one has looked at."""
        seen.append(own[0])
        return [own, (dict.fromkeys(own[0], "other"), None)]

    start = StartTogether(rank=1, place=1, places=2, gather=two_machines)
    with starting(start), pytest.raises(UserError, match="must be the same on all machines, "):
        load_policy(str(tmp_path), None, Network())
    files = json.loads((tmp_path / "config.json").read_text())["num_hidden_layers"] * 9 + 3
    assert len(seen[0]) == files // 2
    start = StartTogether(
        rank=0, place=0, places=2, gather=lambda own: [own, ({}, "model.norm.weight")]
    )
    with starting(start), pytest.raises(UserError, match=r"finite, 'model.norm.weight' holds NaN"):
        load_policy(str(tmp_path), None, Network())
