"""Step 3: reinforcement learning from the reward function: PPO, PPO-ptx and their kin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from instructgpt.algorithms.base import RolloutAlgorithm
from instructgpt.algorithms.kl import FixedKL, KLController
from instructgpt.algorithms.ppo import PPO
from instructgpt.algorithms.schedule import Constant, Schedule
from instructgpt.models.heads import ValueHead
from instructgpt.models.load import Network
from instructgpt.models.trained import Trained
from instructgpt.modules.base import StageModule
from instructgpt.modules.finite import of_samples, stop, together
from instructgpt.modules.fits import check_context
from instructgpt.modules.held_out import HeldOut
from instructgpt.modules.memory import Memory, where
from instructgpt.modules.networks import (
    Frozen,
    Value,
    build_networks,
    optimizer_groups,
    save_networks,
)
from instructgpt.modules.optimizer import PaperAdam, leave_out
from instructgpt.modules.ppo_plan import check_plan, phase_memory, phase_work, plan_lines
from instructgpt.modules.pretraining import Pretraining, objective_norms
from instructgpt.modules.respond import predict_rows, roll_out, scored_responses
from instructgpt.modules.sharding import gathered
from instructgpt.modules.work import Cost
from instructgpt.modules.zero3 import whole_weights
from instructgpt.rewards.base import RewardFunction
from instructgpt.rollout.buffer import RolloutBuffer
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.ema import WeightAverage
from instructgpt.rollout.learn import episodes_loss, learn_from, untouched
from instructgpt.rollout.metrics import Stopwatch, rollout_seconds
from instructgpt.rollout.phase import Phase
from instructgpt.rollout.prompts import PhasePrompts
from instructgpt.rollout.sampler import Texts
from instructgpt.rollout.scoring import Networks, not_finite_rows, without_abstained
from instructgpt.rollout.shared import SharedScoring
from instructgpt.rollout.updates import Batches, UpdateLoader, plan_updates
from instructgpt.types import PromptBatch, require


class PPOModule(StageModule):
    """Rollouts against a reward function, and updates on them: PPO, PPO-ptx and their kin.

    Step 3 and eq. 2 of arXiv:2203.02155. One epoch of the trainer is one rollout phase;
    ``--trainer.max_epochs`` is the budget (paper: 500 phases of 512 episodes).

    Args:
        init_from: folder of the supervised policy (``runs/…/export``), of a Hugging Face model, or
            a hub id; also the reference of the KL penalty.
        reward: scores the responses: LearnedReward, a rule, a python function, or a mixture.
        judge: a second opinion on answers to validation prompts, from which nothing is learned; the
            doctor says when it falls while the reward rises (over-optimisation).
        tokenizer: folder or hub id of the tokenizer; that of ``init_from`` unless given.
        network: number format, attention kernel, gradient checkpointing of all networks.
        trained: what is trained: LoRA, Prefix or LastLayers; null: all weights. With an adapter the
            reference is the policy without it.
        optimizer: makes the optimizer; ``--model.optimizer.lr`` is the policy's rate. The paper
            searched 2.55e-6 to 2.55e-5; plain PPO diverged above 8.05e-6.
        schedule: of all learning rates, counted in rollout phases (paper: constant after 10 phases
            of warmup from a tenth).
        algorithm: turns rollouts into a loss, and says which networks there are.
        kl: weight of the KL penalty from phase to phase (paper: fixed at 0.02).
        batches: episodes of a phase, of an optimizer step, of a forward pass.
        sampling: how responses are drawn; the same temperature divides the logits in the update.
        value: the value model and how it is trained.
        pretraining: the pretraining term of eq. 2, which makes it PPO-ptx.
        reuse_logprobs: take the log-probabilities that sampling recorded, and do not ask the policy
            again before the updates: 8 % of a phase, but the first ratios are 1 only as nearly as
            both passes agree: within 4e-5 in float32; in bfloat16 within 0.5, and 1 % of the
            tokens would be clipped before anything is learned (SmolLM2-135M). The entropy is then
            estimated from the tokens drawn.
        ema_decay: average of the policy's weights, updated once a phase and exported beside it
            (paper: 0.992); null keeps none.
        seed: of sampling and of the order of updates.
    """

    stage = "ppo"
    batch_type = predict_type = PromptBatch
    data_module = predict_data = "PromptDataModule"

    init_from: str

    def __init__(
        self,
        init_from: str,
        reward: RewardFunction,
        tokenizer: str | None = None,
        network: Network = Network(),
        trained: Trained | None = None,
        optimizer: OptimizerCallable = lambda p: PaperAdam(p, lr=3.74e-6),
        schedule: Schedule = Constant(warmup=10),
        algorithm: RolloutAlgorithm = PPO(),
        kl: KLController = FixedKL(),
        batches: Batches = Batches(),
        sampling: Sampling = Sampling(),
        value: Value = Value(),
        pretraining: Pretraining = Pretraining(),
        reuse_logprobs: bool = False,
        ema_decay: float | None = 0.992,
        seed: int = 0,
        judge: RewardFunction | None = None,
    ) -> None:
        super().__init__(init_from, None, tokenizer, network, trained, optimizer, schedule)
        require(0 <= (ema_decay or 0) < 1, "model.ema_decay", "in [0, 1)", ema_decay)
        require(not sampling.greedy, "model.sampling.temperature", "> 0 to learn from", 0)
        self.algorithm, self.kl, self.batches, self.sampling = algorithm, kl, batches, sampling
        self.value, self.pretraining = value, pretraining
        self.ema_decay, self.seed, self.reuse_logprobs = ema_decay, seed, reuse_logprobs
        self.frozen, self.phase = Frozen(reward, judge), Phase(kl, reuse_logprobs)
        self.pretraining_gradient: dict[str, Tensor] = {}  # of an update that is measured
        self.worst_ratio = torch.zeros(())  # largest |ratio - 1| of the first update so far

    def setup(self, stage: str) -> None:
        """Prepare the reward function and the batch arithmetic."""
        super().setup(stage)
        self.texts = Texts(self.tokenizer, self.template, self.data.max_response_tokens)
        if stage == "predict":
            return
        for finding in self.frozen.reward.warnings():
            self.tell(finding)
        if stage == "fit":
            asked = (self.algorithm, self.value, self.kl, self.pretraining, self.sampling)
            texts, episodes = self.data.pretraining, self.batches.rollout_batch_size
            for line in check_plan(*asked, texts, episodes):
                rank_zero_warn(line)
            trainer = self.trainer
            place = trainer.accumulate_grad_batches, self.data.world_size, self.data.rank
            sizes, budget = (self.batches, self.algorithm, *place), self.network.max_tokens
            self.plan_of_updates = plan_updates(*sizes, self.seed, budget)
            each, always = self.algorithm.responses_per_prompt, bool(trainer.overfit_batches)  # type: ignore[attr-defined]
            self.prompts = PhasePrompts(self.data.rollout_prompts, episodes, each, always)
            self._sizes = (self.batches, self.plan_of_updates, self.pretraining)

    @property
    def reward_function(self) -> RewardFunction:
        """What the policy learns from."""
        return self.frozen.reward

    def build(self) -> None:
        """Load policy, reference and value model, as far as the algorithm uses them."""
        made_of = (self.network, self.tokenizer, self.trained, self.tell)
        built, self.frozen.reference, origins = build_networks(
            self.algorithm, self.value, self.init_from, self.frozen.reward, *made_of
        )
        self.origins |= origins
        self.policy = built.policy
        for network in built.readers:
            check_context(network, self.data.row_tokens)
        if built.value is not None:  # the name says which of both a checkpoint holds
            shared = isinstance(built.value, ValueHead)
            setattr(self, "value_head" if shared else "value_model", built.value)
        if self.ema_decay is not None:
            self.average = self.phase.average = WeightAverage(built.policy, self.ema_decay)
        self.networks = built
        self.held_out = HeldOut(self.algorithm.uses_reference, self.frozen.judge is not None)

    def trained_networks(self) -> list[nn.Module]:
        """The policy, and the value model if there is one."""
        return self.networks.trained

    def frozen_networks(self) -> list[nn.Module]:
        """The reward model, and the reference if it is a network of its own."""
        reference = self.frozen.reference
        return [*super().frozen_networks(), *([] if reference is None else [reference])]

    def exchange(self, others: Mapping[nn.Module, nn.Module]) -> None:
        """Use other networks, also under their other name."""
        super().exchange(others)
        own: list[Any] = [None if n is None else others.get(n, n) for n in self.networks]
        self.networks = Networks(*own)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Policy and value, each with its own rate."""
        return optimizer_groups(self.networks, self.value)

    def batching(self) -> dict[str, int]:
        """Parts of a step; minibatches do not depend on the number of processes."""
        return {"trainer.accumulate_grad_batches": self.trainer.accumulate_grad_batches}

    def get_ready(self) -> None:
        """Move what Lightning does not see, and what a checkpoint has brought back."""
        super().get_ready()
        self.frozen.to(self.device, next(self.policy.parameters()).dtype)
        self.frozen.prepare_judge(self.tokenizer, self.template, self.device)
        if self.phase.buffer is not None:
            self.phase.buffer = self.phase.buffer.to(self.device)

    @property
    def updates(self) -> int:
        """Optimizer steps of a phase, which a limit of the trainer can cut short."""
        if (items := self.trainer.num_training_batches) == float("inf"):  # no loader yet
            return self.plan_of_updates.updates
        return -(-int(items) // self.plan_of_updates.accumulate)

    def schedule_position(self, step: int) -> tuple[int, int]:
        """The schedule counts phases."""
        return step // self.updates, max(1, self.total_steps // self.updates)

    def rollouts_left(self) -> int:
        """Phases whose rollout is not complete."""
        steps, number = self.planned_steps() or 0, self.trainer.current_epoch
        return max(0, -(-steps // self.updates) - number - self.phase.holds(number))

    def plan(self) -> list[tuple[str, str]]:
        """Rollouts, minibatches, micro-batches, steps and tokens to come."""
        most, steps = self.data.max_response_tokens, self.planned_steps()
        warmup = self.value.warmup_phases if self.algorithm.uses_value else 0
        return plan_lines(self._sizes, self.updates, most, steps, warmup)

    def memory(self) -> Memory:
        """Sampling, scoring and an update; what is frozen; gradients of pieces before."""
        asked = (self.data, self.sampling, where(self.trainer), self.phase.average is not None)
        return phase_memory(self.networks, self.frozen, self._sizes, *asked)

    def work(self, steps: int) -> list[Cost]:
        """Of the phases that so many steps are."""
        made_of = (self.networks, self.frozen, self._sizes, self.data, self.reuse_logprobs)
        return phase_work(*made_of, steps / self.updates)

    def update_loader(self) -> UpdateLoader:
        """Which rows of a rollout each update sees."""
        return UpdateLoader(self.plan_of_updates)

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        """Collect a rollout when a phase starts: ``on_train_epoch_start`` misses resumed ones."""
        if self.phase.holds(number := self.trainer.current_epoch):
            return
        self.phase.adapt_kl_coef(self.batches.rollout_batch_size)
        with self.rollout_clock.running():
            warming_up = self.algorithm.uses_value and number < self.value.warmup_phases
            self.phase.begin(*self.collect(number), value_only=warming_up)
        self.worst_ratio = torch.zeros((), device=self.device)
        if abstained := int(self.phase.metrics["ppo/abstained"]):
            count = f"{abstained:,} of {self.batches.rollout_batch_size:,} responses"
            rank_zero_warn(f"the reward function abstained on {count}, which train nothing")

    @torch.no_grad()
    def collect(self, number: int) -> tuple[RolloutBuffer, dict[str, float]]:
        """Collect the experience of a phase; the same on every rank and for any number of ranks.

        Responses and scores, of all ranks; what the networks say; what the algorithm makes of it.
        """
        watch, kl_coef = Stopwatch(), self.phase.kl_coef
        asked = (self.policy, self.texts, self.sampling, self.seed, self.frozen.reward)
        with self.networks.evaluating():
            rollout, scores, sure = scored_responses(self, self.prompts, number, *asked, watch)
            sampled = float(rollout.response_mask.sum()) / watch.seconds["sample"]
            rollout, scores = without_abstained(rollout, scores)
            made_of = (self.networks, self.algorithm, self.plan_of_updates, self.reuse_logprobs)
            ask = (self.sampling.temperature, self.all_gather, self.progress)
            with gathered(self.trainer, []), self.trainer.precision_plugin.forward_context():
                scoring = SharedScoring(*made_of, *ask)
                scored, rows = scoring.score(rollout, scores, number, kl_coef, watch)
        if (found := not_finite_rows(scored)) is not None:
            names = of_samples(self.prompts.ids(found[1], number))
            stop(self, [f"{found[0]} is not finite{names}"], self.global_step)
        buffer, metrics = learn_from(self.algorithm, scored, rows, kl_coef, number)
        metrics |= sure | {"throughput/sampled_tokens_per_second": sampled}
        return buffer, metrics | {f"time/{name}": value for name, value in watch.seconds.items()}

    # -- one optimizer step

    def training_step(self, rows: Tensor, batch_idx: int) -> Tensor:
        """Eq. 2: γ times the pretraining loss, then the loss of the episodes, piece by piece."""
        plan, buffer, rows = self.plan_of_updates, self.phase.current, rows.cpu()
        if self.phase.stopped:  # a no-op on every rank; returning None is not possible with several
            return self.pieces.compute(self, partial(untouched, self))
        update, part = divmod(batch_idx, plan.accumulate)
        window = plan.window(buffer.phase, batch_idx, int(self.trainer.num_training_batches))
        if not (divisor := buffer.weight(window)):
            names = of_samples(self.prompts.ids(buffer.rows[window].tolist(), buffer.phase))
            finding = f"the reward function abstained on a whole minibatch{names}"
            stop(self, [finding], self.global_step + 1)
        if self.pretraining.ptx_coef and part == 0 and not self.phase.value_only:
            asked = (self, (buffer.phase, update), len(window))
            loss, self.pretraining_gradient = self.pretraining.backward(*asked)
            self.phase.metrics["loss/ptx"] = float(loss)
        self.log_dict(self.phase.news(), prog_bar=True, logger=False)
        pieces, first = plan.micro_batches(rows, buffer.lengths), update == 0
        losses = [partial(self.episodes_loss, piece, divisor, first) for piece in pieces]
        return self.pieces.one_by_one(self, losses)

    def episodes_loss(self, rows: Tensor, divisor: float, first: bool) -> Tensor:
        """The algorithm's loss of a micro-batch; in the first update every ratio must be 1."""
        buffer = self.phase.current
        asked = (self.algorithm, self.networks, buffer, rows, self.sampling.temperature)
        loss = episodes_loss(*asked, self.phase.value_only)
        if first:
            self.worst_ratio = torch.maximum(self.worst_ratio, loss.worst)
        ids = partial(self.prompts.ids, buffer.rows[rows].tolist(), buffer.phase)
        return self.summed_loss(loss.total, loss.weight, ids, divisor, loss.sums)

    def log_step(self, sums: dict[str, float]) -> None:
        """Count an update; in a warm-up the policy has no gradient."""
        if not self.phase.sums:  # the first update
            worst = self.trainer.strategy.reduce(self.worst_ratio, reduce_op="max")
            self.phase.first_error = float(worst)
        if self.pretraining_gradient:
            self.phase.metrics |= objective_norms(self.policy, self.pretraining_gradient)
            self.pretraining_gradient = {}
        if self.phase.value_only:
            leave_out(self.trainer.optimizers[0], "policy")
        self.phase.add(sums, self.algorithm.target_kl)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Step unless the phase was stopped; state changes here, so that checkpoints see it."""
        if self.phase.stopped:
            optimizer_closure()
            optimizer.zero_grad()
        else:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if batch_idx + 1 >= self.trainer.num_training_batches:
            self.close_phase()

    def close_phase(self) -> None:
        """Average the policy and log what a phase was, also of one that a limit has cut short."""
        if not self.phase.open:
            return
        if self.phase.average is not None:
            with whole_weights(self.trainer):
                self.phase.average.update(self.policy)
        metrics = self.phase.end(self.batches.rollout_batch_size)
        for logger in self.loggers:
            logger.log_metrics(metrics, step=self.global_step + 1)
        self.trainer.callback_metrics.update({n: torch.tensor(v) for n, v in metrics.items()})

    on_train_end = finalize = close_phase

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a phase carries, so that a run resumes in the middle of it exactly."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["ppo"] = self.phase.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        super().on_load_checkpoint(checkpoint)
        self.phase.load_state_dict(checkpoint["ppo"], self.algorithm.experience_type)
        self.rollout_clock.before = rollout_seconds(self.phase.metrics)

    # -- held-out prompts, sampled and greedy; predictions; artefact

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Answer the prompts twice, score the answers, and measure the KL of the sampled ones."""
        greedy = replace(self.sampling, temperature=0.0)
        for kind, sampling in (("sampled", self.sampling), ("greedy", greedy)):
            with gathered(self.trainer, [self.policy]):
                rollout, samples = together(self, partial(self._answer, batch, sampling))
            with gathered(self.trainer, self.frozen.reward.networks()):
                said = together(self, partial(self.frozen.opinions, samples))
            asked = (self.network.max_tokens, partial(self.pieces.as_many, self))
            kl = self.networks.sequence_kl(rollout, sampling.temperature, *asked)
            if kl is not None:
                ids: partial[list[str]] = partial(list, [prompt.id for prompt in batch.prompts])
                self.guard.see("the KL to the reference", kl[batch.sample_ids >= 0].sum(), ids)
            shown = self.held_out.add(kind, batch, rollout, samples, said, kl)
            now = {"step": self.global_step, "phase": self.current_epoch}
            self.samples += [now | row for row in shown]

    def _answer(self, batch: PromptBatch, sampling: Sampling) -> tuple[Any, ...]:
        rollout = roll_out(self, self.policy, batch, sampling, phase=0)
        return rollout, self.texts.samples(rollout, batch.prompts, sampling)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all prompts."""
        self.guard.check(self)
        prefix = "test" if self.trainer.testing else "val"
        for name, value in self.held_out.results().items():
            self.log(f"{prefix}/{name}", value, prog_bar=name == "score")
        self.say_intervals(prefix, self.held_out.estimates.take(self.trainer))

    test_step, on_test_epoch_end = validation_step, on_validation_epoch_end

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[dict[str, Any]]:
        """K responses a prompt."""
        return predict_rows(self, self.policy, batch, self.sampling)

    def export(self, path: Path, config: dict[str, Any], metrics: dict[str, float]) -> None:
        """Write the policy, and in its folder ``ema`` (the averaged policy) and the value."""
        parents = (self.init_from, self.value.init_from or self.init_from)
        made = (self.networks, self.phase.average, self.tokenizer, parents)
        about = {"stage": self.stage, "template": self.template, "metrics": metrics}
        save_networks(path, *made, {**about, "config": config, "data": self.data.used()})
