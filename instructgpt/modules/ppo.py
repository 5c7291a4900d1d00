"""Step 3: reinforcement learning from the reward function, with PPO or PPO-ptx."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from instructgpt.algorithms.base import RolloutAlgorithm, require
from instructgpt.algorithms.kl import FixedKL, KLController
from instructgpt.algorithms.ppo import PPO
from instructgpt.algorithms.schedule import Constant, Schedule
from instructgpt.models.adapters import Adapter
from instructgpt.models.load import Network
from instructgpt.modules.collect import collect, row_ids
from instructgpt.modules.finite import of_samples, stop
from instructgpt.modules.networks import Frozen, Value
from instructgpt.modules.optimizer import PaperAdam
from instructgpt.modules.phase import Updates, over_ranks, rollout_seconds
from instructgpt.modules.policy_stage import PolicyStage
from instructgpt.modules.pretraining import Pretraining, PretrainingMix
from instructgpt.rewards.base import RewardFunction
from instructgpt.rollout.buffer import RolloutBuffer, take
from instructgpt.rollout.sampler import Sampling
from instructgpt.rollout.scoring import response_logprobs
from instructgpt.rollout.updates import Batches, UpdateLoader, UpdatePlan, accumulation
from instructgpt.types import UserError


class PPOModule(PolicyStage):
    """PPO and PPO-ptx against a reward function (step 3 and eq. 2 of arXiv:2203.02155).

    One epoch of the trainer is one rollout phase; ``--trainer.max_epochs`` is the budget (paper:
    500 phases of 512 episodes). Nothing is trained on but the module's own rollouts.

    Args:
        init_from: folder of the supervised policy (``runs/…/export``), of a Hugging Face model, or
            a hub id; also the reference of the KL penalty.
        reward: scores the responses: LearnedReward, a rule, a python function, or a mixture.
        tokenizer: folder or hub id of the tokenizer; that of ``init_from`` unless given.
        network: number format, attention kernel, gradient checkpointing of all networks.
        adapter: train a LoRA or Prefix adapter instead of all weights; the reference is the policy
            without it.
        optimizer: makes the optimizer of policy and value; ``--model.optimizer.lr`` is the policy's
            rate. The paper searched 2.55e-6 to 2.55e-5 and does not print its choice; plain PPO
            diverged above 8.05e-6.
        schedule: of both learning rates, counted in rollout phases (paper: constant after 10 phases
            of warmup from a tenth).
        algorithm: turns rollouts into a loss.
        kl: weight of the KL penalty from phase to phase (paper: fixed at 0.02).
        batches: episodes of a phase, of an optimizer step, of a forward pass.
        sampling: how responses are drawn; the same temperature divides the logits in the update.
        value: the value model and how it is trained.
        pretraining: the pretraining term of eq. 2, which makes it PPO-ptx.
        ema_decay: average of the policy's weights, updated once a phase and exported beside it
            (paper: 0.992); null keeps none.
        seed: of sampling and of the order of updates.
    """

    def __init__(
        self,
        init_from: str,
        reward: RewardFunction,
        tokenizer: str | None = None,
        network: Network = Network(),
        adapter: Adapter | None = None,
        optimizer: OptimizerCallable = lambda p: PaperAdam(p, lr=3.74e-6),
        schedule: Schedule = Constant(warmup=10),
        algorithm: RolloutAlgorithm = PPO(),
        kl: KLController = FixedKL(),
        batches: Batches = Batches(),
        sampling: Sampling = Sampling(),
        value: Value = Value(),
        pretraining: Pretraining = Pretraining(),
        ema_decay: float | None = 0.992,
        seed: int = 0,
    ) -> None:
        super().__init__(init_from, None, tokenizer, network, adapter, optimizer, schedule)
        decays = ema_decay is None or 0 <= ema_decay < 1
        require(decays, "model.ema_decay", "in [0, 1)", ema_decay)
        require(not sampling.greedy, "model.sampling.temperature", "> 0 to learn from", 0)
        self.algorithm, self.kl = algorithm, kl
        self.batches, self.value, self.pretraining = batches, value, pretraining
        self.sampling = sampling
        self.shared_value = value.kind == "shared"
        self.ema_decay = ema_decay
        self.seed = seed
        self.frozen = Frozen(None, reward)
        self.mix = PretrainingMix(self)
        self.buffer: RolloutBuffer | None = None
        self.plan_of_updates: UpdatePlan
        # What changes from phase to phase, and so goes into checkpoints:
        self.kl_coef = kl.initial
        self.last_kl: float | None = None
        self.stopped = False
        self.phase_open = False  # updates of the phase are still to come
        self.phase_metrics: dict[str, float] = {}
        self.done = Updates()

    # -- building

    def setup(self, stage: str) -> None:
        """Prepare the reward function and the batch arithmetic."""
        super().setup(stage)
        if stage == "predict":
            return
        self.frozen.reward.prepare(self.tokenizer, self.template, self.device)
        for line in self.frozen.reward.warnings():
            rank_zero_warn(line)
        if stage == "fit":
            if self.pretraining.ptx_coef and self.data.pretraining is None:
                raise UserError(
                    "data.pretraining must be given when model.pretraining.ptx_coef is "
                    f"{self.pretraining.ptx_coef}, got null"
                )
            if not self.pretraining.ptx_coef and self.data.pretraining is not None:
                rank_zero_warn("data.pretraining is not used: model.pretraining.ptx_coef is 0")
            self.plan_of_updates = self._plan_updates()
            self.kl.update(
                self.kl.initial, 0.0, self.batches.rollout_batch_size
            )  # refuses a short horizon
            if self.sampling.top_p < 1 or self.sampling.top_k:
                rank_zero_warn(
                    "model.sampling.top_p and top_k cut the distribution that responses come from, "
                    "but ratios and KL are of the whole one: the update is off-policy"
                )

    def _plan_updates(self) -> UpdatePlan:
        trainer = self.trainer
        if self.batches.microbatch_size is not None:
            trainer.accumulate_grad_batches = accumulation(
                self.batches.minibatch_size,
                self.batches.microbatch_size,
                trainer.world_size,
                trainer.accumulate_grad_batches,
            )
        return UpdatePlan(
            self.batches.rollout_batch_size,
            self.batches.minibatch_size,
            self.algorithm.epochs,
            trainer.accumulate_grad_batches,
            trainer.world_size,
            trainer.global_rank,
            self.seed,
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Policy and value in one optimizer: two would count every update twice."""
        policy, value = self.trained_networks()
        return [
            {"params": [p for p in policy.parameters() if p.requires_grad], "name": "policy"},
            {
                "params": [p for p in value.parameters() if p.requires_grad],
                "name": "value",
                "lr": self.value.lr,
                "weight_decay": self.value.weight_decay,
            },
        ]

    def schedule_position(self, step: int) -> tuple[int, int]:
        """The schedule counts phases."""
        return step // self.updates, max(1, self.total_steps // self.updates)

    @property
    def updates(self) -> int:
        """Optimizer steps of a phase, which a limit of the trainer can cut short."""
        batches = self.trainer.num_training_batches
        if batches == float("inf"):  # the loader is not set up yet
            return self.plan_of_updates.updates
        return -(-int(batches) // self.plan_of_updates.accumulate)

    def rollouts_left(self) -> int:
        """Phases whose rollout is not complete."""
        steps, phase = self.planned_steps() or 0, self.trainer.current_epoch
        collected = phase + (self.buffer is not None and self.buffer.phase == phase)
        return max(0, -(-steps // self.updates) - collected)

    def plan(self) -> list[tuple[str, str]]:
        """Rollouts, minibatches, micro-batches, steps and tokens to come."""
        plan, data = self.plan_of_updates, self.data
        steps = self.planned_steps()
        phases = "until the time is up" if steps is None else f"{-(-steps // self.updates):,}"
        most = self.batches.rollout_batch_size * data.max_response_tokens
        mix = self.pretraining
        rows = mix.ptx_per_episode * self.batches.minibatch_size
        ptx = f"{rows:,} pretraining rows x {mix.ptx_coef}"
        lines = [
            ("rollout phases", phases),
            (
                "a phase",
                f"{self.batches.rollout_batch_size:,} episodes, at most {most:,} sampled tokens",
            ),
            (
                "minibatches",
                f"{self.updates:,} a phase, {self.batches.minibatch_size:,} episodes each",
            ),
            ("micro-batches", f"{plan.microbatch_size:,} episodes, {plan.accumulate} a step"),
            ("pretraining mix", f"{ptx} a step" if self.pretraining.ptx_coef else "none"),
            ("optimizer steps", f"{steps:,}" if steps is not None else "until the time is up"),
        ]
        return lines + self.memory_lines()

    def update_loader(self) -> UpdateLoader:
        """Micro-batch indices; the rollout itself is collected when a phase starts."""
        return UpdateLoader(self.plan_of_updates)

    # -- one phase

    def on_train_start(self) -> None:
        """Bring what a checkpoint held to the device."""
        super().on_train_start()
        if self.buffer is not None:
            self.buffer = self.buffer.to(self.device)
        self.zero_grad()

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        """Collect a rollout when a phase starts.

        Not in ``on_train_epoch_start``: Lightning skips that when it resumes from the last batch of
        an epoch.
        """
        phase = self.trainer.current_epoch
        if self.buffer is not None and self.buffer.phase == phase:
            return
        if self.last_kl is not None:
            self.kl_coef = self.kl.update(
                self.kl_coef, self.last_kl, self.batches.rollout_batch_size
            )
        with self.rollout_clock.running():
            self.buffer, self.phase_metrics = collect(self, phase)
        self.last_kl = self.phase_metrics["ppo/kl"]
        if abstained := int(self.phase_metrics["ppo/abstained"]):
            count = f"{abstained:,} of {self.batches.rollout_batch_size:,} responses"
            rank_zero_warn(f"the reward function abstained on {count}, which train nothing")
        self.stopped, self.phase_open, self.done = False, True, Updates()

    def training_step(self, rows: Tensor, batch_idx: int) -> Tensor:
        """Policy and value loss of one micro-batch, after the pretraining gradient of its step."""
        if self.stopped:  # a no-op on every rank; returning None is not possible with several
            trained = [p for p in self.parameters() if p.requires_grad]
            return torch.stack([p.sum() * 0.0 for p in trained]).sum()
        assert self.buffer is not None
        phase, plan = self.buffer.phase, self.plan_of_updates
        window = plan.window(phase, batch_idx, int(self.trainer.num_training_batches))
        update, first_of_update = divmod(batch_idx, plan.accumulate)
        if self.pretraining.ptx_coef and first_of_update == 0:
            nll = self.mix.backward(
                phase * plan.updates + update,
                self.pretraining.ptx_per_episode * len(window),
                update == 0,
            )
            self.phase_metrics["loss/ptx"] = float(nll)
        batch = take(self.buffer.experience, rows.to(self.device))
        policy = response_logprobs(
            self.policy, batch.rollout, self.sampling.temperature, hidden=self.shared_value
        )
        values = self.values(batch.rollout, policy.hidden)[:, :-1]
        loss = self.algorithm.loss(batch, policy.logprobs, values)
        logprobs, mask = self.buffer.logprobs[rows.to(self.device)], batch.rollout.response_mask
        weight = self.buffer.weight(rows)
        self.done.add(update == 0, logprobs, policy.logprobs, mask, loss, weight)
        self.guard.see("the loss", loss.total, lambda: self._ids(rows))
        self.log_dict(
            {"score": self.phase_metrics["ppo/score"], "kl": self.phase_metrics["ppo/kl"]},
            prog_bar=True,
            logger=False,
        )
        divisor = self.buffer.weight(window)
        if not divisor:
            names = of_samples(self._ids(window))
            finding = f"the reward function abstained on a whole minibatch{names}"
            stop(self, [finding], self.global_step + 1)
        undo = self.trainer.accumulate_grad_batches * self.trainer.world_size
        return loss.total * (undo / divisor)

    def _ids(self, rows: Tensor) -> list[str]:
        """Ids of the prompts of some rows of the rollout."""
        assert self.buffer is not None
        ids = row_ids(self, self.buffer.phase)
        return [ids[row] for row in rows.tolist()]

    # -- one optimizer step

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Do nothing: Lightning calls this after ``training_step``, losing the mix's gradient."""

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Measure the norms of both objectives where they were kept apart, then clip."""
        if self.mix.kept:
            self.phase_metrics |= self.mix.norms()
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Step unless the phase was stopped; state changes here, so that checkpoints see it."""
        if self.stopped:
            optimizer_closure()
        else:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            self._stop_at_target_kl(self.done.step())
        optimizer.zero_grad()
        if batch_idx + 1 >= self.trainer.num_training_batches:
            self._end_phase()

    def on_train_end(self) -> None:
        """Close a phase that a limit of steps or time has cut short; its checkpoint is written."""
        if self.phase_open:
            self._end_phase()

    def finalize(self) -> None:
        """The same where a checkpoint of such a phase left nothing to train."""
        if self.phase_open:
            self._end_phase()

    def _end_phase(self) -> None:
        self.phase_open = False
        if self.ema_decay is not None:
            self.ema.update(self.policy)
        self._log_phase()

    def _stop_at_target_kl(self, step: dict[str, Tensor]) -> None:
        target = self.algorithm.target_kl
        if target is not None:
            sums = over_ranks(step, self.all_sum)
            self.stopped = sums["approx_kl"] / max(sums["tokens"], 1.0) > target

    def _log_phase(self) -> None:
        self.phase_metrics |= self.done.metrics(self.all_sum, self.all_max)
        metrics = self.phase_metrics
        metrics["ppo/stopped"] = float(self.stopped)
        seconds = sum(value for name, value in metrics.items() if name.startswith("time/"))
        tokens = metrics["ppo/response_length"] * self.batches.rollout_batch_size
        metrics["throughput/tokens_per_second"] = tokens / seconds
        for logger in self.loggers:
            logger.log_metrics(metrics, step=self.global_step + 1)
        self.trainer.callback_metrics.update(
            {name: torch.tensor(value) for name, value in metrics.items()}
        )

    # -- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a phase carries, so that a run resumes in the middle of it exactly."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["ppo"] = {
            "kl_coef": self.kl_coef,
            "kl_initial": self.kl.initial,
            "last_kl": self.last_kl,
            "stopped": self.stopped,
            "phase_open": self.phase_open,
            "ema": self.ema.weights if self.ema_decay is not None else {},
            "done": self.done.state_dict(self.all_sum, self.all_max),
            "buffer": self.buffer.state_dict() if self.buffer is not None else None,
            "metrics": self.phase_metrics,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["ppo"]
        self.last_kl = state["last_kl"]
        if state.get("kl_initial", self.kl.initial) == self.kl.initial:
            self.kl_coef = state["kl_coef"]  # else another one is asked for, from the next phase on
        self.stopped, self.phase_metrics = state["stopped"], state["metrics"]
        self.rollout_clock.before = rollout_seconds(self.phase_metrics)
        self.phase_open = state["phase_open"]
        self.done.load_state_dict(state["done"], first_rank=self.global_rank == 0)
        if self.ema_decay is not None:
            self.ema.weights = state["ema"]
        if state["buffer"] is not None:
            made = self.algorithm.experience_type
            self.buffer = RolloutBuffer.from_state_dict(state["buffer"], made)
