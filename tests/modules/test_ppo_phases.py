"""A PPO phase in time: resuming in it, cutting it short, stopping it, its schedule and clock."""

import math
import time
from dataclasses import dataclass

import pytest
import torch
from descent import sgd, weights
from lightning.pytorch import Callback
from small_ppo import StopAt, Watch, make
from toy_rollout import GroupPolicy

from instructgpt.algorithms.base import UpdateLoss
from instructgpt.algorithms.kl import AdaptiveKL
from instructgpt.algorithms.ppo import PPO
from instructgpt.algorithms.rloo import RLOO
from instructgpt.algorithms.schedule import Cosine
from instructgpt.callbacks.checkpoint import StageCheckpoint
from instructgpt.models.load import Network, load_policy
from instructgpt.models.trained import LoRA
from instructgpt.modules.networks import Value
from instructgpt.modules.pretraining import Pretraining
from instructgpt.rewards.learned import LearnedReward
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.updates import Batches


@pytest.mark.parametrize(
    ("at", "trained"),
    [((0, 0), None), ((1, 1), None), ((1, 3), None), ((2, 2), LoRA(rank=2)), ((2, 3), None)],
)
def test_resumes_exactly_in_the_middle_of_a_phase(
    fit, prompt_data, policy_artefact, reward_artefact, files, tmp_path, at, trained
):
    def build():
        return make(
            policy_artefact,
            LearnedReward(reward_artefact),
            trained=trained,
            optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3),
            algorithm=PPO(epochs=2),
            kl=AdaptiveKL(0.1, target=0.01, horizon=50),
            pretraining=Pretraining(0.3, 1),
            network=Network(max_tokens=40),  # several pieces a step
            ema_decay=0.9,
        )

    def data():
        return prompt_data(pretraining=files["text"], pretraining_block_size=16)

    whole = build()
    fit(whole, data(), max_epochs=3)
    path = tmp_path / "stop.ckpt"
    with pytest.raises(SystemExit):
        fit(build(), data(), max_epochs=3, callbacks=[StopAt(*at, path)])
    torch.load(path, weights_only=True)
    resumed = build()
    fit(resumed, data(), max_epochs=3, ckpt_path=path)
    assert resumed.phase.kl_coef == whole.phase.kl_coef != 0.1
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    for name, tensor in whole.phase.average.weights.items():
        assert torch.equal(resumed.phase.average.weights[name], tensor), name
    measured = {n: v for n, v in whole.phase.metrics.items() if n.startswith(("ppo/", "loss/"))}
    assert {n: resumed.phase.metrics[n] for n in measured} == pytest.approx(measured, rel=1e-5)


class Bar(Callback):
    """Keeps what a progress bar shows after each step, and what it should show."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        shown, metrics = trainer.progress_bar_metrics, pl_module.phase.metrics
        right = {"score": metrics["ppo/score"], "kl": metrics["ppo/kl"]}
        self.seen.append((trainer.global_step, {n: shown[n] for n in right}, right))


def test_a_progress_bar_shows_score_and_kl_of_its_phase_at_every_step(
    fit, prompt_data, policy_artefact, tmp_path
):
    first, second, path = Bar(), Bar(), tmp_path / "stop.ckpt"
    every = {"max_epochs": 3, "limit_val_batches": 1, "val_check_interval": 0.5}
    watched = [first, StopAt(1, 0, path)]  # in the middle of a phase
    with pytest.raises(SystemExit):
        fit(make(policy_artefact), prompt_data(), callbacks=watched, **every)
    fit(make(policy_artefact), prompt_data(), callbacks=[second], ckpt_path=path, **every)
    seen = first.seen + second.seen
    assert len(seen) == seen[-1][0] == 6
    assert len({right["score"] for _, _, right in seen}) > 1
    for step, shown, right in seen:
        assert shown == pytest.approx(right, abs=1e-6), step


def test_resumes_exactly_with_what_sampling_recorded(fit, prompt_data, policy_artefact, tmp_path):
    """Log-probabilities and the ids drawn from, of prompts with several responses, in pieces."""

    def build():
        return make(
            policy_artefact,
            optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3),
            algorithm=RLOO(responses_per_prompt=2, epochs=2, importance_cap=1.5),
            sampling=Sampling(0.8, top_k=9, own_support=True),
            network=Network(max_tokens=40),
            reuse_logprobs=True,
        )

    whole, path, resumed = build(), tmp_path / "stop.ckpt", build()
    fit(whole, prompt_data(), max_epochs=2)
    with pytest.raises(SystemExit):
        fit(build(), prompt_data(), max_epochs=2, callbacks=[StopAt(1, 1, path)])
    fit(resumed, prompt_data(), max_epochs=2, ckpt_path=path)
    assert torch.equal(weights(resumed), weights(whole))
    measured = {n: v for n, v in whole.phase.metrics.items() if n.startswith(("ppo/", "loss/"))}
    assert {n: resumed.phase.metrics[n] for n in measured} == pytest.approx(measured, rel=1e-5)


def test_resumes_exactly_at_the_end_of_a_limited_phase(fit, prompt_data, policy_artefact, tmp_path):
    def build():
        return make(policy_artefact, algorithm=PPO(epochs=2))

    limits = {"max_epochs": 3, "limit_train_batches": 2}
    whole, path = build(), tmp_path / "stop.ckpt"
    fit(whole, prompt_data(), **limits)
    with pytest.raises(SystemExit):
        fit(build(), prompt_data(), callbacks=[StopAt(0, 1, path)], **limits)
    resumed = build()
    fit(resumed, prompt_data(), ckpt_path=path, **limits)
    assert torch.equal(weights(resumed), weights(whole))


def test_a_second_interruption_trains_no_further_phase(fit, prompt_data, policy_artefact, tmp_path):
    """Two updates a phase; stopped after the last of phase 0, then in phase 1 and at its end."""
    whole, first, second = make(policy_artefact), tmp_path / "1.ckpt", tmp_path / "2.ckpt"
    fit(whole, prompt_data(), max_epochs=4)
    for at in ((1, 0), (1, 1), (2, 1)):
        with pytest.raises(SystemExit):
            fit(make(policy_artefact), prompt_data(), max_epochs=4, callbacks=[StopAt(0, 1, first)])
        stop = StopAt(*at, second)
        with pytest.raises(SystemExit):
            fit(make(policy_artefact), prompt_data(), first, max_epochs=4, callbacks=[stop])
        resumed = make(policy_artefact)
        trainer = fit(resumed, prompt_data(), second, max_epochs=4)
        assert trainer.global_step == 8
        assert resumed.phase.buffer.phase == 3
        assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("steps", [1, 3, 4, 6])
def test_goes_on_where_max_steps_cut_a_phase(fit, prompt_data, policy_artefact, tmp_path, steps):
    """Phases of 4 updates; the first run's export has closed the phase, its checkpoint has not."""

    def build():
        return make(policy_artefact, algorithm=PPO(epochs=2), ema_decay=0.5)

    whole, resumed = build(), build()
    fit(whole, prompt_data(), max_epochs=2)
    saves = {"callbacks": [StageCheckpoint()], "enable_checkpointing": True}
    fit(build(), prompt_data(), max_steps=steps, max_epochs=2, **saves)
    trainer = fit(resumed, prompt_data(), tmp_path / "checkpoints" / "last.ckpt", max_epochs=2)
    assert trainer.global_step == 8
    assert torch.equal(weights(resumed), weights(whole))
    for name, tensor in whole.phase.average.weights.items():
        assert torch.equal(resumed.phase.average.weights[name], tensor), name


def test_a_cut_phase_is_closed_also_where_nothing_is_left_to_train(
    fit, prompt_data, policy_artefact, tmp_path
):
    module, resumed = make(policy_artefact), make(policy_artefact)
    saves = {"callbacks": [StageCheckpoint()], "enable_checkpointing": True}
    fit(module, prompt_data(), max_steps=1, **saves)
    fit(resumed, prompt_data(), tmp_path / "checkpoints" / "last.ckpt", max_steps=1)
    resumed.finalize()
    for name, tensor in module.phase.average.weights.items():
        assert torch.equal(resumed.phase.average.weights[name], tensor), name


def test_a_longer_run_goes_on_at_the_rate_of_its_own_schedule(
    fit, prompt_data, policy_artefact, tmp_path
):
    """Cosine over 2 phases, resumed after one with 4 to go: 0.1 + 0.9 * (1 + cos(pi / 4)) / 2."""

    class Rates(Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.seen.append(pl_module.optimizers().param_groups[0]["lr"])

    def build():
        return make(policy_artefact, schedule=Cosine(), optimizer=lambda p: sgd(p, lr=1.0))

    path = tmp_path / "stop.ckpt"
    with pytest.raises(SystemExit):
        fit(build(), prompt_data(), max_epochs=2, callbacks=[StopAt(0, 1, path)])
    rates = Rates()
    fit(build(), prompt_data(), max_epochs=4, ckpt_path=path, callbacks=[rates])
    assert rates.seen[0] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)


def test_a_phase_cut_short_is_closed(fit, prompt_data, policy_artefact):
    module = make(policy_artefact, ema_decay=0.5, algorithm=PPO(epochs=2))
    start = weights(load_policy(policy_artefact, None, Network(), None))
    fit(module, prompt_data(), max_steps=3)  # of 4
    assert "loss/policy" in module.phase.metrics
    average = torch.cat([w.flatten() for w in module.phase.average.weights.values()])
    torch.testing.assert_close(average, (start + weights(module.policy)) / 2)


def test_target_kl_turns_the_rest_of_the_phase_into_no_ops(fit, prompt_data, policy_artefact):
    watch = Watch()
    module = make(
        policy_artefact,
        algorithm=PPO(epochs=4, target_kl=1e-6),
        optimizer=lambda p: sgd(p, lr=1.0),
    )
    trainer = fit(module, prompt_data(), max_epochs=1, callbacks=[watch])
    assert trainer.global_step == 8
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == 8  # the schedule counts phases
    assert watch.phases[0]["ppo/stopped"] == 1.0
    # Update 1 sees the policy that sampled (KL 0); update 2 sees the change, steps, and stops the
    # rest.
    short = make(policy_artefact, algorithm=PPO(epochs=4), optimizer=lambda p: sgd(p, lr=1.0))
    fit(short, prompt_data(), max_epochs=1, max_steps=2)
    assert torch.equal(weights(module.policy), weights(short.policy))


@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_the_policy_stands_still_while_the_value_warms_up(fit, prompt_data, policy_artefact, kind):
    """In the first phase of two, although the optimizer decays weights."""

    class Weights(Callback):
        def __init__(self):
            self.seen = []

        def on_train_epoch_end(self, trainer, pl_module):
            self.seen.append((weights(pl_module.policy), weights(pl_module.networks.value)))

    watch, moves = Watch(), Weights()
    module = make(
        policy_artefact,
        value=Value(kind, lr=0.1, warmup_phases=1),
        optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.5),
        algorithm=PPO(epochs=2, missing_eos_score=None),
        ema_decay=0.5,
    )
    fit(module, prompt_data(), max_epochs=2, callbacks=[watch, moves])
    start = weights(load_policy(policy_artefact, None, Network(), None))
    assert dict(module.plan())["rollout phases"] == "2 (the first 1: the value alone)"
    (policy, value), (later_policy, later_value) = moves.seen
    assert torch.equal(policy, start)
    assert not torch.equal(later_policy, start)
    assert not torch.equal(value, later_value)
    # The second pass computes other micro-batches than the first, which rounds differently.
    assert watch.phases[0]["ppo/first_ratio_error"] == 0
    assert watch.phases[0]["ppo/approx_kl"] == pytest.approx(0, abs=1e-10)
    assert watch.phases[0]["ppo/ratio"] == pytest.approx(1, abs=1e-6)
    assert watch.phases[0]["loss/value"] > 0
    assert watch.phases[1]["ppo/approx_kl"] > 1e-8


def test_the_seconds_of_a_phase_are_those_of_the_clock(fit, prompt_data, policy_artefact):
    """Its parts do not overlap, and little is in none of them."""

    class Clock(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            self.start = time.perf_counter()

        def on_train_epoch_end(self, trainer, pl_module):
            self.took = time.perf_counter() - self.start

    clock = Clock()
    module = make(policy_artefact, algorithm=PPO(epochs=4))
    fit(module, prompt_data(), max_epochs=2, callbacks=[clock])
    parts = {n: s for n, s in module.phase.metrics.items() if n.startswith("time/")}
    names = ("sample", "reward", "policy_and_value", "reference", "update")
    assert set(parts) == {f"time/{name}" for name in names}
    assert 0.5 * clock.took < sum(parts.values()) <= clock.took


@dataclass(frozen=True)
class Named(GroupPolicy):
    """Has a part called as a number of the rollout."""

    def loss(self, batch, new_logprobs, new_values):
        total, _ = super().loss(batch, new_logprobs, new_values)
        names = ("total", "ids", "kl")
        return UpdateLoss(total, {name: 2 * total.detach() for name in names})


def test_a_part_of_a_loss_takes_the_place_of_nothing(fit, prompt_data, policy_artefact):
    watch = Watch()
    module = make(policy_artefact, algorithm=Named(), batches=Batches(6, 6))
    fit(module, prompt_data(), max_epochs=1, callbacks=[watch])
    phase = watch.phases[0]
    assert phase["ppo/kl"] == pytest.approx(0, abs=1e-5)  # of the rollout, not of the loss
    assert phase["ppo/ratio"] == pytest.approx(1, abs=1e-6)
    for name in ("total", "ids", "kl"):
        assert phase[f"loss/{name}"] == pytest.approx(2 * phase["loss/loss"], abs=1e-7)
