"""Two FSDP2 processes begin with their parts of the networks that one process begins with."""

import gc
import re
from pathlib import Path

import pytest
import torch
from harness import run_processes
from lightning.pytorch import Callback

from instructgpt.algorithms.schedule import Constant
from instructgpt.models.artefact import save_policy
from instructgpt.models.load import Network, load_policy
from instructgpt.models.shards import whole
from instructgpt.models.template import get_template
from instructgpt.models.trained import LastLayers, LoRA
from instructgpt.modules.networks import Value
from instructgpt.modules.ppo import PPOModule
from instructgpt.modules.sft import SFTModule
from instructgpt.modules.sharding import FSDP2Strategy
from instructgpt.rewards.learned import LearnedReward
from instructgpt.rewards.rules import CountReward
from instructgpt.rollout.updates import Batches


class BegunError(Exception):
    """The fit has come to its start, and need not go on."""


class AtStart(Callback):
    """Keeps the weights at the start of a fit, and what memory rose to until then."""

    def __init__(self):
        self.weights, self.digests, self.before, self.peak = [], {}, 0, 0

    def setup(self, trainer, pl_module, stage):
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        self.before = resident("VmRSS")

    def on_fit_start(self, trainer, pl_module):
        self.peak = resident("VmHWM") - self.before
        networks = [pl_module, *pl_module.frozen_networks()]
        self.weights = [whole(p.detach()) for one in networks for p in one.parameters()]
        self.digests = {name: one.digest for name, one in pl_module.all_origins().items()}
        raise BegunError


def resident(name):
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024


def begin(fit, module, data, **options):
    start = AtStart()
    with pytest.raises(BegunError):
        fit(module, data, callbacks=[start], **options)
    return start


def on_two(**options):
    return {"strategy": FSDP2Strategy(**options), "devices": 2}


@pytest.mark.parametrize("kind", ["separate", "new head", "whole frozen", "LoRA", "LastLayers"])
def test_the_same_weights(fit, prompt_data, policy_artefact, reward_artefact, kind, capfd):
    def start(processes):
        torch.manual_seed(processes)
        module = PPOModule(
            init_from=policy_artefact,
            reward=CountReward(text="e") if kind == "new head" else LearnedReward(reward_artefact),
            schedule=Constant(),
            batches=Batches(8, 4),
            value=Value("shared" if kind == "LoRA" else "separate"),
            trained={"LoRA": LoRA(rank=2), "LastLayers": LastLayers(1)}.get(kind),
        )
        options = on_two(shard_frozen=kind != "whole frozen") if processes > 1 else {}
        begun = begin(fit, module, prompt_data(), **options)
        average = [one.tolist() for one in module.average.whole().values()]
        return [one.tolist() for one in begun.weights], begun.digests, average

    alone = start(1)
    capfd.readouterr()
    for spread in run_processes(lambda: start(2)):
        assert spread == alone
    said = capfd.readouterr().out.count("every process first has all of it")
    assert said == (kind == "LastLayers")


def test_the_memory_of_a_start(fit, demonstration_data, tiny_tokenizer, tmp_path):
    """Half of 145 MiB and what it takes to spread a layer (92); 236 if every process built all."""

    def make():  # in a process of its own: what this one gives back would be used again, uncounted
        shape = {"model_type": "gpt2", "n_embd": 512, "n_layer": 12, "n_head": 4, "n_positions": 64}
        policy = load_policy(None, shape, Network(), tiny_tokenizer)
        own = {"stage": "sft", "parent": None, "config": {}, "metrics": {}}
        own |= {"template": get_template("plain")}
        save_policy(policy, tiny_tokenizer, tmp_path / "policy", **own)
        return [p.numel() * p.element_size() for p in policy.parameters()]

    def start():
        module = SFTModule(init_from=str(tmp_path / "policy"), dropout=0.0)
        return begin(fit, module, demonstration_data(), **on_two()).peak

    (sizes,) = run_processes(make, processes=1)
    for peak in run_processes(start):
        assert peak < sum(sizes)
