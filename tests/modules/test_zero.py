"""Two processes with DeepSpeed's optimizer do what one does without."""

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from descent import SaveAt, weights
from harness import run_processes
from lightning.pytorch import Callback
from spread_stages import ppo_ptx_stage

from instructgpt.algorithms.schedule import Cosine
from instructgpt.models.load import Network
from instructgpt.modules.optimizer import PaperAdam
from instructgpt.modules.preference import PreferenceModule
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.modules.sharding import gathered, whole_networks

pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")


def adam(parameters):
    """With an eps above the rounding of gradients that are 0, such as those of biases of keys."""
    return PaperAdam(parameters, lr=1e-3, weight_decay=0.01, eps=1e-6)


COMMON = {"optimizer": adam, "schedule": Cosine(), "network": Network(max_tokens=48)}


class SaveInValidation(Callback):
    """As a checkpoint of the best validation is."""

    def __init__(self, folder):
        self.folder = folder

    def on_validation_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / "validated.ckpt")


STAGES = [2, 3]


def on(processes, stage):
    how = {"strategy": f"deepspeed_stage_{stage}", "devices": 2} if processes > 1 else {}
    return {"limit_val_batches": 1.0, "gradient_clip_val": 0.05, **how}


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    """Without the kernel for shared memory, which DeepSpeed would compile for a minute."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    backend = import_module("deepspeed.comm.torch")
    monkeypatch.setattr(backend, "build_shm_op", lambda: None)


def check(train):
    """On one process without, on two with DeepSpeed."""
    alone, metrics = train(1)
    for spread, found in run_processes(lambda: train(2), timeout=110):
        torch.testing.assert_close(torch.tensor(spread), torch.tensor(alone), atol=1e-5, rtol=1e-5)
        for name, value in metrics.items():
            assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def result(module, trainer):
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    with gathered(trainer):
        return weights(module).tolist(), logged


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_sft(fit, demonstration_data, policy_artefact, tmp_path, accumulate, stage):
    def train(processes):
        options = {"dropout": 0.0, "validation_prompts": 2}
        module = SFTModule(init_from=policy_artefact, **COMMON, **options)
        data = demonstration_data(batch_size=8 // processes // accumulate)
        how = on(processes, stage) | {"accumulate_grad_batches": accumulate}
        how["callbacks"] = [SaveInValidation(tmp_path)]
        return result(module, fit(module, data, max_epochs=3, **how))

    check(train)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("loop", ["reward", "preference"])
def test_comparisons(fit, comparison_data, policy_artefact, loop, stage):
    def train(processes):
        kind = {"reward": RewardModule, "preference": PreferenceModule}[loop]
        module = kind(init_from=policy_artefact, **COMMON)
        data = comparison_data(batch_size=8 // processes)
        return result(module, fit(module, data, max_epochs=2, **on(processes, stage)))

    check(train)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("value", "accumulate"), [("separate", 1), ("shared", 2)])
def test_ppo_ptx(
    fit, prompt_data, policy_artefact, reward_artefact, files, value, accumulate, stage
):
    """With a phase in which the value model learns alone, which stage 3 refuses."""

    def train(processes):
        network = Network(max_tokens=37 if processes > 1 else None)
        module = ppo_ptx_stage(policy_artefact, reward_artefact, value, network)
        if stage == 3:
            module.value = replace(module.value, warmup_phases=0)
            module.algorithm = replace(module.algorithm, target_kl=None)
        data = prompt_data(pretraining=files["text"], pretraining_block_size=16)
        options = on(processes, stage) | {"accumulate_grad_batches": accumulate}
        trainer = fit(module, data, max_epochs=2, **options)
        trained, metrics = result(module, trainer)
        names = ("ppo/score", "ppo/kl", "loss/policy", "loss/value", "loss/ptx", "ppo/first_ratio")
        average = torch.cat([one.flatten() for one in module.phase.average.whole().values()])
        metrics = {name: value for name, value in metrics.items() if name.startswith("val/")}
        return trained + average.tolist(), metrics | {n: module.phase.metrics[n] for n in names}

    check(train)


@pytest.mark.parametrize("stage", STAGES)
def test_goes_on_from_a_checkpoint(stage, fit, demonstration_data, policy_artefact, tmp_path):
    """Two from that of two to the last bit, one from it, and two from that of one."""

    def train(processes, path=None, callbacks=()):
        options = {"dropout": 0.0, "validation_prompts": 0}
        module = SFTModule(init_from=policy_artefact, **COMMON, **options)
        data = demonstration_data(batch_size=8 // processes)
        how = {"max_epochs": 3, "callbacks": callbacks, **on(processes, stage)}
        return result(module, fit(module, data, ckpt_path=path, **how))

    ours, theirs = tmp_path / "one.ckpt", tmp_path / "two.ckpt"
    exact, _ = train(1, callbacks=[SaveAt(3, ours)])
    spread = run_processes(lambda: train(2, callbacks=[SaveAt(3, theirs)]), timeout=100)
    assert run_processes(lambda: train(2, theirs), timeout=100) == spread
    alone, _ = train(1, theirs)
    torch.testing.assert_close(torch.tensor(alone), torch.tensor(exact), atol=1e-5, rtol=1e-5)
    for both, _ in run_processes(lambda: train(2, ours), timeout=100):
        torch.testing.assert_close(torch.tensor(both), torch.tensor(exact), atol=1e-5, rtol=1e-5)


def test_the_best_weights_are_taken_back(fit, demonstration_data, policy_artefact, tmp_path):
    """After a fit, for the export, where every process has parts."""
    path = tmp_path / "best.ckpt"

    def train():
        module = SFTModule(init_from=policy_artefact, **COMMON, validation_prompts=0)
        data = demonstration_data(batch_size=4)
        trainer = fit(module, data, max_epochs=2, callbacks=[SaveAt(1, path)], **on(2, 3))
        last, _ = result(module, trainer)
        checkpoint = trainer.strategy.load_checkpoint(path)
        trainer.strategy.load_model_state_dict(checkpoint)
        kept = checkpoint["state_dict"]
        with whole_networks(module):
            same = all(torch.equal(p, kept[name]) for name, p in module.named_parameters())
        return same, last == result(module, trainer)[0]

    assert run_processes(train, timeout=100) == [(True, False)] * 2
