"""``--trainer.precision 16-mixed``: what its loss scale skips, counts and keeps, on a CPU, too."""

import math
import warnings

import pytest
import torch
from descent import SaveAt, half_precision, weights
from harness import run_processes
from lightning.pytorch import Callback, Trainer
from small_ppo import make as make_ppo

from instructgpt.algorithms.schedule import Cosine
from instructgpt.models.shards import local
from instructgpt.modules.networks import Value
from instructgpt.modules.optimizer import PaperAdam
from instructgpt.modules.pretraining import Pretraining
from instructgpt.modules.sft import SFTModule

SPOILED = 3


def adam(parameters):
    return PaperAdam(parameters, lr=0.01)


def sft(source):
    options = {"dropout": 0.0, "optimizer": adam, "schedule": Cosine(), "validation_prompts": 0}
    return SFTModule(init_from=source, **options)


class Beyond(Callback):
    """Makes one number of the gradient of a step infinite, on one process."""

    def __init__(self, step=SPOILED, rank=0):
        self.step, self.rank = step, rank

    def on_after_backward(self, trainer, pl_module):
        if (trainer.global_step + 1, trainer.global_rank) == (self.step, self.rank):
            gradient = next(p.grad for p in pl_module.parameters() if p.grad is not None)
            local(gradient).view(-1)[0] = torch.inf


class Steps(Callback):
    """Keeps what each step did."""

    def __init__(self):
        self.before, self.changed, self.rates, self.norms = None, [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = weights(pl_module)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.changed.append(bool((weights(pl_module) != self.before).any()))
        self.norms.append(float(trainer.callback_metrics["gradient_norm/sft"]))


def test_a_step_beyond_float16_changes_nothing_and_is_said(
    fit, demonstration_data, policy_artefact
):
    module, plugin = sft(policy_artefact), half_precision(1024.0)
    watch, exact, data = Steps(), Steps(), demonstration_data(batch_size=4)
    fit(sft(policy_artefact), data, max_epochs=2, callbacks=[exact])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        how = {"plugins": [plugin], "gradient_clip_val": 1.0, "callbacks": [watch, Beyond()]}
        trainer = fit(module, demonstration_data(batch_size=4), max_epochs=2, **how)
    assert [i + 1 for i, changed in enumerate(watch.changed) if not changed] == [SPOILED]
    lines = [str(one.message) for one in said if "loss scale" in str(one.message)]
    assert lines == [
        f"the gradient of optimizer step {SPOILED} is not finite at a loss scale of 1024: "
        "the step changes nothing, and the scale becomes 512"
    ]
    assert plugin.scaler.get_scale() == 512
    # Adam has not seen the step; the data and the schedule are where they are without it.
    steps = len(watch.changed)
    optimizer = trainer.optimizers[0]
    assert {int(state["step"]) for state in optimizer.state.values()} == {steps - 1}
    assert trainer.global_step == steps == len(module.step_losses)
    assert watch.rates == exact.rates
    assert all(map(math.isfinite, watch.norms))
    assert float(trainer.callback_metrics["train/skipped_steps"]) == 1


def test_the_first_update_of_a_phase_may_be_skipped(fit, prompt_data, files, policy_artefact):
    """What is measured then, norms of both objectives, is left out, and the phase goes on."""
    value, ptx = Value("separate", lr=0.1), Pretraining(0.5, 1)
    module = make_ppo(policy_artefact, value=value, pretraining=ptx)
    data = prompt_data(pretraining=files["text"], pretraining_block_size=16)
    phases = []

    class Skips(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            phases.append((pl_module.guard.skips.count, dict(pl_module.phase.metrics)))

    plugin = half_precision(2.0**60)  # no gradient of a first phase is within float16
    with warnings.catch_warnings(record=True) as said:
        fit(module, data, max_epochs=2, callbacks=[Skips()], plugins=[plugin])
    assert not [one for one in said if "lr_scheduler.step()" in str(one.message)]
    (first, metrics), (second, _) = phases
    assert (first, second) == (module.updates, 2 * module.updates)
    assert plugin.scaler.get_scale() == 2.0 ** (60 - second)
    assert metrics["ppo/first_ratio"] == 1
    assert all(map(math.isfinite, metrics.values()))
    assert "gradient_norm/ptx" not in metrics


@pytest.mark.parametrize("loop", ["sft", "ppo"])
def test_a_run_goes_on_with_its_scale(
    fit, demonstration_data, prompt_data, policy_artefact, tmp_path, loop
):
    """It grows after steps that were counted before the file was written, one of them skipped."""
    path, runs = tmp_path / "saved.ckpt", []
    for ckpt_path in (None, path):
        if loop == "sft":
            module, data = sft(policy_artefact), demonstration_data(batch_size=4)
        else:
            module = make_ppo(policy_artefact, optimizer=adam, ema_decay=0.9)
            data = prompt_data()
        # Skipped: step 3; saved: after step 5, one step before the scale grows.
        plugin = half_precision(1024.0, growth_interval=3)
        how = {"callbacks": [Beyond(), SaveAt(5, path)], "plugins": [plugin]}
        trainer = fit(module, data, ckpt_path=ckpt_path, max_epochs=4, **how)
        scaler = plugin.scaler.state_dict()
        runs.append((weights(module), scaler, module.guard.skips.count, trainer.global_step))
    (exact, scale, skipped, steps), (again, *rest) = runs
    assert torch.equal(again, exact)
    assert rest == [scale, skipped, steps]
    assert skipped == 1
    assert scale["scale"] == 512 * 2 ** ((steps - 3) // 3)
    assert scale["_growth_tracker"] == (steps - 3) % 3


def test_all_parts_of_a_spread_network_skip_a_step(fit, demonstration_data, policy_artefact):
    """One process alone sees the infinity."""

    def train():
        module, plugin = sft(policy_artefact), half_precision(1024.0)
        how = {"strategy": "fsdp2", "devices": 2, "plugins": [plugin], "max_steps": 4}
        spoil = Beyond(rank=1)
        trainer = fit(module, demonstration_data(batch_size=2), callbacks=[spoil], **how)
        states = trainer.optimizers[0].state.values()
        return plugin.scaler.get_scale(), {int(s["step"]) for s in states}, module.guard.skips.count

    assert run_processes(train) == [(512.0, {3}, 1)] * 2


def test_a_cpu_takes_bfloat16_and_says_so():
    with pytest.warns(
        UserWarning, match="not supported on CPU. Using `precision='bf16-mixed'` inst"
    ):
        trainer = Trainer(accelerator="cpu", precision="16-mixed", logger=False)
    assert trainer.precision == "bf16-mixed"
