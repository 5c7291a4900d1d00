"""The doctor finds new heads and noise; each finding has a test, and is said everywhere."""

import ast
import json
import re
from html import unescape
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from small_ppo import make
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from instructgpt.__main__ import main as run
from instructgpt.callbacks.doctor import Doctor
from instructgpt.callbacks.limits import LIMITS
from instructgpt.data.tallies import CUT
from instructgpt.models.artefact import save_scalar
from instructgpt.models.load import Network, load_scalar
from instructgpt.models.template import get_template
from instructgpt.models.trained import FrozenTrunk, LoRA, Prefix, attach
from instructgpt.modules.moved import AT_THE_END
from instructgpt.modules.networks import Value
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.rewards.learned import LearnedReward
from instructgpt.types import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def found(fit):
    """Findings of a run of an epoch by their names."""

    def look(module, data, *callbacks):
        doctor = Doctor()
        fit(module, data, callbacks=[*callbacks, doctor], max_epochs=1)
        return {one["name"]: one for one in doctor.found}

    return look


@pytest.fixture
def bare_reward(policy_artefact, tiny_tokenizer, tmp_path):
    """A reward model without an offset, of weights that are all trained or with other features."""

    def build(trained=None, plain=False):
        torch.manual_seed(3)
        model = load_scalar(policy_artefact, None, Network(), tiny_tokenizer, head="new")
        model = attach(model, trained)
        torch.nn.init.normal_(next(model.head.parameters()))
        own = {"stage": "reward", "parent": None, "config": {}, "metrics": {}}
        template = get_template("plain")
        save_scalar(model, tiny_tokenizer, tmp_path / "bare", template=template, **own)
        if plain:  # as a published one lies there
            (tmp_path / "bare" / "instructgpt.json").unlink()
        return f"{tmp_path}/bare"

    return build


def test_cut_prompts_are_found(found, demonstration_data, policy_artefact, capsys):
    names = found(SFTModule(policy_artefact), demonstration_data(max_prompt_tokens=3))
    assert list(names) == ["prompts_cut"]
    assert "warning: doctor: prompts_cut: " in capsys.readouterr().out


def test_a_head_that_reads_something_else_is_found(
    found, comparison_data, reward_artefact, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module = RewardModule(reward_artefact, trained=FrozenTrunk(ridge=0.0))
    names = found(module, comparison_data())
    assert list(names) == ["reward_head"]
    assert "to keep it" in names["reward_head"]["remedy"]


def test_a_value_model_without_a_head_to_start_from_is_found(
    found, prompt_data, policy_artefact, bare_reward
):
    names = found(make(policy_artefact, LearnedReward(bare_reward(FrozenTrunk()))), prompt_data())
    assert sorted(names) == ["offset", "value_head"]
    assert "read features of whole responses" in names["value_head"]["what"]


def test_a_value_model_cannot_start_where_a_prefix_is(
    found, prompt_data, policy_artefact, bare_reward
):
    """Nothing is trained beside a prefix: the reward model is asked, and the value starts anew."""
    prefixed, lora = bare_reward(Prefix(tokens=2)), {"trained": LoRA(rank=2)}
    names = found(make(policy_artefact, LearnedReward(prefixed), **lora), prompt_data())
    assert sorted(names) == ["offset", "value_head"]
    assert (
        "has a prefix, beside which there is no --model.trained LoRA"
        in (names["value_head"]["what"])
    )
    rule = "value.init_from must have no prefix with --model.trained LoRA, got"
    with pytest.raises(UserError, match=rule):
        found(make(policy_artefact, value=Value(init_from=prefixed), **lora), prompt_data())


def test_a_reward_model_that_says_no_template_is_found(
    found, prompt_data, policy_artefact, bare_reward
):
    module = make(policy_artefact, LearnedReward(bare_reward(plain=True)))
    assert sorted(found(module, prompt_data())) == ["offset", "reward_template"]


class Noise(Callback):
    """Of a network's own, in every pass: neither the dropout nor the seed of a run reaches it."""

    def on_fit_start(self, trainer, pl_module):
        drawn = torch.Generator().manual_seed(1)
        hook = lambda *_: _[-1] + 0.2 * torch.randn(_[-1].shape, generator=drawn)  # noqa: E731
        pl_module.policy.transformer.wte.register_forward_hook(hook)


def test_sampling_and_training_passes_that_differ_are_found(found, prompt_data, policy_artefact):
    names = found(make(policy_artefact), prompt_data(), Noise())
    assert sorted(names) == ["first_ratio", "sampler_gap"]
    recorded = make(policy_artefact, reuse_logprobs=True)
    assert sorted(found(recorded, prompt_data(), Noise())) == ["sampler_gap"]


def test_a_finding_is_said_once_everywhere(
    files, policy_artefact, bare_reward, tmp_path, capsys, recwarn
):
    """Of data, while it is built, before, of a rollout, of phases in a row, and at the end."""
    arguments = [
        *("fit", "--model=PPOModule", f"--model.init_from={policy_artefact}"),
        *("--model.reward=LearnedReward", f"--model.reward.init_from={bare_reward()}"),
        *("--model.batches.rollout_batch_size=32", "--model.batches.minibatch_size=8"),
        *("--model.optimizer.lr=1e-9", "--model.value.lr=1e-9", "--model.sampling.top_k=1"),
        *("--data=PromptDataModule", f"--data.train={files['prompts']}", "--data.validation=0.2"),
        *("--model.sampling.min_response_tokens=3", "--data.max_response_tokens=3"),
        *("--data.max_prompt_tokens=8", "--trainer.max_epochs=3", "--trainer.accelerator=cpu"),
        *("--trainer.enable_progress_bar=false", f"--output={tmp_path / 'run'}"),
    ]
    assert run(arguments) == 0
    said = "\n".join([*capsys.readouterr(), *(str(one.message) for one in recwarn)])
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["doctor"]
    names = [one["name"] for one in found]
    wanted = {"prompts_cut", "offset", "eos_reachable", "no_end", "eos_rate", AT_THE_END}
    assert wanted <= set(names)
    assert len(names) == len(set(names))
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"tensors": 0}).Reload()
    (table,) = events.Tensors("doctor/text_summary")[-1].tensor_proto.string_val
    table = unescape(table.decode().replace("\\", ""))
    for one in found:
        line = f"doctor: {one['name']}: {one['what']}: {one['why']}; {one['remedy']}"
        assert said.count(f"doctor: {one['name']}: ") == said.count(line) == 1
        row = f"| {one['name']} | {one['what']} | {one['why']} | {one['remedy']} |"
        assert table.count(f"| {one['name']} |") == table.count(row) == 1


def quoted(path):
    """All strings of a file of Python."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.value for node in nodes if isinstance(node, ast.Constant)}


def test_every_finding_is_documented_and_provoked():
    """By its name, in a test of this kind; those of limits in a table of their own."""
    sources = [path.read_text() for path in ROOT.glob("instructgpt/**/*.py")]
    names = {name for text in sources for name in re.findall(r"Diagnosis\(\s*\"(\w+)\"", text)}
    names |= {one.name for one in LIMITS} | {name for name, _ in CUT.values()} | {AT_THE_END}
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/doctor.md").read_text(), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == names
    tests = [Path(__file__), *Path(__file__).parent.glob("test_doctor*.py")]
    assert names - set().union(*map(quoted, tests)) == {AT_THE_END}
