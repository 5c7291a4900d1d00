"""Numbers that are not finite end a run, whatever they are numbers of."""

import json
import re

import pytest
import torch
from descent import half_precision, sgd
from harness import run_processes
from last_line import last_line
from lightning.pytorch import Callback
from small_ppo import make as make_ppo

from instructgpt.__main__ import main
from instructgpt.algorithms.schedule import Constant
from instructgpt.callbacks.checkpoint import StageCheckpoint
from instructgpt.modules import pretraining, sft
from instructgpt.modules.language import LanguageLoss, language_loss
from instructgpt.modules.pretraining import Pretraining
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.types import RunFailedError


def make(source, **options):
    defaults = {"dropout": 0.0, "optimizer": sgd, "schedule": Constant(), "validation_prompts": 0}
    return SFTModule(init_from=source, **{**defaults, **options})


def arguments(stage, files, policy, reward):
    own = {
        "sft": ["--model=SFTModule", "--data=DemonstrationDataModule", "--model.schedule=Constant"],
        "reward": ["--model=RewardModule", "--data=ComparisonDataModule"],
        "ppo": ["--model=PPOModule", "--data=PromptDataModule", "--model.reward=LearnedReward"],
    }[stage]
    train = {"sft": "demonstrations", "reward": "comparisons", "ppo": "prompts"}[stage]
    common = [f"--model.init_from={policy}", f"--data.train={files[train]}"]
    common += ["--data.max_prompt_tokens=24", "--data.max_response_tokens=24"]
    common += ["--trainer.accelerator=cpu", "--trainer.max_epochs=3", "--data.validation=null"]
    common += ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    if stage == "ppo":
        own += [f"--model.reward.init_from={reward}", "--model.schedule=Constant"]
        own += ["--model.batches.rollout_batch_size=8", "--model.batches.minibatch_size=4"]
    else:
        own += ["--data.batch_size=4"]
    return ["fit", *own, *common]


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_a_rate_that_blows_up(stage, files, policy_artefact, reward_artefact, tmp_path, capsys):
    """The weights become huge, and the next forward pass is not finite."""
    args = arguments(stage, files, policy_artefact, reward_artefact)
    args += ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=1e36"]
    assert main([*args, f"--output={tmp_path / 'run'}"]) == 1
    line = last_line(capsys)
    assert line.startswith("instructgpt: error: the ")
    assert re.search(r"samples [a-z]+\.jsonl:\d+, ", line), line
    assert "at optimizer step 2: stopped, nothing is exported" in line
    assert not (tmp_path / "run" / "export").exists()
    assert not (tmp_path / "run" / "metrics.json").exists()


class Poison(Callback):
    """Makes one number of a tensor NaN after a step, or an infinity."""

    def __init__(self, step, name, value=torch.nan):
        self.step, self.name, self.value = step, name, value

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            with torch.no_grad():
                dict(pl_module.named_parameters())[self.name].view(-1)[0] = self.value


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_a_checkpoint_keeps_the_last_good_weights(
    fit, demonstration_data, policy_artefact, tmp_path, value
):
    name = "policy.transformer.ln_f.weight"
    callbacks = [Poison(4, name, value), StageCheckpoint(every_n_steps=2)]
    with pytest.raises(RunFailedError) as error:
        fit(
            make(policy_artefact),
            demonstration_data(batch_size=4),
            callbacks=callbacks,
            max_epochs=2,
            enable_checkpointing=True,
        )
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert str(error.value) == (
        f"the weights {name} are not finite at optimizer step 4: stopped, nothing is exported; "
        f"the state before is in {last}"
    )
    kept = torch.load(last, weights_only=True)
    assert kept["global_step"] == 2
    assert all(tensor.isfinite().all() for tensor in kept["state_dict"].values())


class SpoilGradient(Callback):
    """Makes the gradient of a parameter infinite from a step on."""

    def __init__(self, name, step=0):
        self.name, self.step = name, step

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step >= self.step:
            dict(pl_module.named_parameters())[self.name].grad.view(-1)[0] = torch.inf


def test_a_gradient_names_its_parameter(fit, demonstration_data, policy_artefact):
    name = "policy.transformer.h.1.attn.c_attn.weight"
    module = make(policy_artefact)
    with pytest.raises(RunFailedError, match=rf"the gradient of {name} is not finite") as error:
        fit(module, demonstration_data(batch_size=4), callbacks=[SpoilGradient(name, 1)])
    assert "at optimizer step 2" in str(error.value)
    assert len(set(re.findall(r"demonstrations\.jsonl:\d+", str(error.value)))) == 4
    weights = [p for p in module.parameters() if p.requires_grad]
    assert all(w.isfinite().all() for w in weights)  # the step was not done


def test_a_loss_scale_that_is_too_high_is_no_fault(fit, demonstration_data, policy_artefact):
    module, steps = make(policy_artefact), 5
    plugin = half_precision(2.0**100)  # halved at each step that it skips
    fit(module, demonstration_data(batch_size=4), max_steps=steps, plugins=[plugin])
    assert plugin.scaler.get_scale() == 2.0 ** (100 - steps)


def test_no_loss_scale_is_low_enough(fit, demonstration_data, policy_artefact):
    spoil = SpoilGradient("policy.transformer.ln_f.weight")
    module, plugin = make(policy_artefact), half_precision(2.0)
    # 2, 1 and then a half: below 1 it is not the scale
    with pytest.raises(RunFailedError, match=r"gradient of policy\.transformer.* optimizer step 3"):
        fit(module, demonstration_data(batch_size=4), plugins=[plugin], callbacks=[spoil])


class Loss(Callback):
    """Spoils the forward pass of one batch on one rank."""

    def __init__(self, rank, step):
        self.rank, self.step = rank, step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        scale = (
            torch.nan
            if (trainer.global_rank, trainer.global_step) == (self.rank, self.step)
            else 1.0
        )

        def spoiled(policy, batch):
            loss = language_loss(policy, batch)
            return loss._replace(total=loss.total * scale)

        sft.language_loss = spoiled  # in a process of its own


def test_all_ranks_stop_and_name_the_rank_that_saw_it(fit, demonstration_data, policy_artefact):
    def train():
        data = demonstration_data(batch_size=2)
        with pytest.raises(RunFailedError) as error:
            fit(
                make(policy_artefact),
                data,
                callbacks=[Loss(1, 2)],
                strategy="ddp",
                devices=2,
            )
        rank = data.rank
        return str(error.value), data.train_dataloader().ids(0, 2) if rank == 1 else None

    (first, _), (second, ids) = run_processes(train)
    expected = f"the loss is nan (samples {', '.join(ids)}) at optimizer step 3"
    assert first == second
    assert first.startswith(expected)


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_validation(
    stage, fit, demonstration_data, comparison_data, prompt_data, policy_artefact, tmp_path
):
    """Finite weights whose validation is not: no checkpoint is written of them."""
    if stage == "ppo":
        module, data = make_ppo(policy_artefact, ema_decay=None), prompt_data()
        where = "policy.transformer.ln_f.weight"
    elif stage == "sft":
        module, data = make(policy_artefact), demonstration_data(batch_size=4)
        where = "policy.transformer.ln_f.weight"
    else:
        module = RewardModule(init_from=policy_artefact, optimizer=sgd, schedule=Constant())
        data, where = comparison_data(batch_size=4), "model.trunk.ln_f.weight"

    class Huge(Callback):
        def on_validation_start(self, trainer, pl_module):
            with torch.no_grad():
                dict(pl_module.named_parameters())[where].fill_(3e38)

    with pytest.raises(RunFailedError, match=r"jsonl:\d+.* at optimizer step \d"):
        fit(
            module,
            data,
            callbacks=[Huge(), StageCheckpoint()],
            enable_checkpointing=True,
            max_epochs=1,
            limit_val_batches=1.0,
        )
    assert list(tmp_path.rglob("*.ckpt")) == []


def test_values_of_a_rollout(fit, prompt_data, policy_artefact):
    class Huge(Callback):
        def on_train_start(self, trainer, pl_module):
            with torch.no_grad():
                pl_module.value_model.head.weight.fill_(3e38)

    module = make_ppo(policy_artefact)
    with pytest.raises(
        RunFailedError, match=r"a value is not finite \(samples prompts.jsonl:\d+, "
    ):
        fit(module, prompt_data(), callbacks=[Huge()], max_epochs=1)


def test_pretraining_text_is_named(fit, prompt_data, policy_artefact, files, monkeypatch):
    module = make_ppo(policy_artefact, pretraining=Pretraining(1.0, 1))
    monkeypatch.setattr(
        pretraining,
        "language_loss",
        lambda *_: LanguageLoss(module.policy.lm_head.weight.sum() * torch.nan, None, None),
    )
    data = prompt_data(pretraining=files["text"], pretraining_block_size=16)
    expected = r"the pretraining loss is nan \(samples pretraining mix block \d+, "
    with pytest.raises(RunFailedError, match=expected):
        fit(module, data, max_epochs=1)


def test_a_step_without_a_target(fit, demonstration_data, policy_artefact, monkeypatch):
    """The mean over nothing would be a loss of 0."""
    module = make(policy_artefact)

    def masked(policy, batch):
        return language_loss(policy, batch._replace(targets=torch.zeros_like(batch.targets)))

    monkeypatch.setattr(sft, "language_loss", masked)
    expected = r"no sample has a target \(samples demonstrations.jsonl:\d+, .* optimizer step 1"
    with pytest.raises(RunFailedError, match=expected):
        fit(module, demonstration_data(batch_size=4), max_epochs=1)


def test_a_checkpoint_with_nan_is_refused(
    files, policy_artefact, reward_artefact, tmp_path, capsys
):
    output = tmp_path / "run"
    args = [*arguments("sft", files, policy_artefact, reward_artefact), f"--output={output}"]
    assert main([*args, "--trainer.max_epochs=1"]) == 0
    path = output / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["policy.transformer.ln_f.bias"][0] = torch.nan
    torch.save(checkpoint, path)
    capsys.readouterr()
    assert main([*args, f"--ckpt_path={path}"]) == 2
    assert "'policy.transformer.ln_f.bias' holds NaN or infinity" in capsys.readouterr().err
    assert json.loads((output / "metrics.json").read_text())["exported"]["step"] == 6
