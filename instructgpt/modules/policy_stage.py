"""What PPO has as a stage, apart from its updates: networks, validation, predictions, artefacts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchmetrics import MeanMetric

from instructgpt.models.artefact import save_policy, save_scalar
from instructgpt.models.digest import weights_digest
from instructgpt.models.finite import check_finite
from instructgpt.models.forward import base_network, exact_tables
from instructgpt.models.heads import ScalarModel, ValueHead
from instructgpt.models.source import explained
from instructgpt.modules.base import StageModule
from instructgpt.modules.ema import WeightAverage
from instructgpt.modules.finite import together
from instructgpt.modules.memory import Need
from instructgpt.modules.networks import Frozen, Value, build_policy, build_value
from instructgpt.modules.ppo_memory import frozen_bytes, phase_needs
from instructgpt.modules.pretraining import Pretraining
from instructgpt.modules.respond import predict_rows, roll_out
from instructgpt.rewards.base import check_abstained
from instructgpt.rollout.sampler import Sampling, to_samples
from instructgpt.rollout.scoring import response_logprobs, response_values
from instructgpt.rollout.updates import UpdatePlan
from instructgpt.types import Origin, PromptBatch, Rollout, Sample

VALUE_HEAD = "value_head.safetensors"
"""Beside an exported policy: the value head on its trunk, with which a further run goes on."""


class PolicyStage(StageModule):
    """A policy with its reference, reward function and value."""

    stage = "ppo"
    batch_type = predict_type = PromptBatch
    data_module = predict_data = "PromptDataModule"

    init_from: str
    policy: nn.Module
    value_head: ValueHead
    value_model: ScalarModel
    ema: WeightAverage
    frozen: Frozen
    sampling: Sampling
    shared_value: bool
    val_metrics: nn.ModuleDict
    ema_decay: float | None
    value: Value
    pretraining: Pretraining
    plan_of_updates: UpdatePlan

    def build(self) -> None:
        """Load policy, reference and value model."""
        self.policy, reference, self.origins["model.init_from"] = build_policy(
            self.init_from, self.network, self.tokenizer, self.adapter
        )
        if self.shared_value:
            output: Any = base_network(self.policy).get_output_embeddings()
            self.value_head = ValueHead(output.weight.shape[1])
            kept = Path(self.init_from, VALUE_HEAD)
            if kept.is_file():
                with explained(f"init_from: cannot load '{kept}'"):
                    self.value_head.load_state_dict(load_file(kept))
                check_finite(f"init_from: '{kept}'", self.value_head)
                origin = Origin(str(kept), weights_digest(self.value_head))
                self.origins["model.value"] = origin
        else:
            self.value_model, self.origins["model.value.init_from"] = build_value(
                self.value.init_from,
                self.init_from,
                self.frozen.reward,
                self.network,
                self.tokenizer,
                self.adapter,
            )
        if self.ema_decay is not None:
            self.ema = WeightAverage(self.policy, self.ema_decay)
        self.frozen.reference = reference
        names = ["score", "kl", "response_length", "eos_rate", "greedy_score", "greedy_eos_rate"]
        names += ["abstained"]
        self.val_metrics = nn.ModuleDict({name: MeanMetric() for name in names})

    def all_origins(self) -> dict[str, Origin]:
        """Add those of the reward function."""
        rewards = self.frozen.reward.origins().items()
        return super().all_origins() | {f"model.reward.{name}": origin for name, origin in rewards}

    def batching(self) -> dict[str, int]:
        """Micro-batches of a step; minibatches do not depend on the number of processes."""
        return {"trainer.accumulate_grad_batches": self.trainer.accumulate_grad_batches}

    def configure_model(self) -> None:
        """Build, and refuse sequences that are longer than the context."""
        super().configure_model()
        self.check_context(self.policy)
        if not self.shared_value:
            self.check_context(self.value_model.trunk)

    @abstractmethod
    def update_loader(self) -> Any:
        """Which rows of a rollout each update sees."""

    def trained_networks(self) -> Sequence[nn.Module]:
        """Policy and value."""
        return [self.policy, self.value_head if self.shared_value else self.value_model]

    def memory_needs(self) -> list[Need]:
        """Sampling, scoring and an update."""
        return phase_needs(self)

    def frozen_bytes(self) -> dict[str, int]:
        """Reference, reward models and the averaged policy."""
        return frozen_bytes(self)

    def keeps_gradients(self) -> bool:
        """Those of the pretraining term, too."""
        return super().keeps_gradients() or bool(self.pretraining.ptx_coef)

    # -- what the networks say

    def values(self, rollout: Rollout, hidden: Tensor | None) -> Tensor:
        """Values before each response token and after the last column, [N, R + 1]."""
        if self.shared_value:
            return self.value_head(hidden)
        return response_values(self.value_model, rollout)

    def reference_logprobs(self, rollout: Rollout) -> Tensor:
        """Log-probabilities under the reference, [N, R]."""
        temperature = self.sampling.temperature
        if self.frozen.reference is None:
            return response_logprobs(self.policy, rollout, temperature, adapter=False).logprobs
        return response_logprobs(self.frozen.reference, rollout, temperature).logprobs

    def get_ready(self) -> None:
        """Move what Lightning does not see."""
        super().get_ready()
        if self.frozen.reference is not None:
            # In the format of the policy: with bf16-true their difference would not start at 0.
            with exact_tables(self.frozen.reference):
                self.frozen.reference.to(self.device, next(self.policy.parameters()).dtype)
        self.frozen.reward.prepare(self.tokenizer, self.template, self.device)

    # -- validation: held-out prompts, sampled and greedy

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Answer the prompts twice, score the answers, and measure the KL of the sampled ones."""
        for kind, sampling in (
            ("sampled", self.sampling),
            ("greedy", replace(self.sampling, temperature=0.0)),
        ):
            rollout, samples, scores = together(self, partial(self._answer, batch, sampling))
            scores, real = scores.to(self.device), batch.sample_ids >= 0
            self._update_means("abstained", scores[real].isnan())
            kl = self._sequence_kl(rollout) if kind == "sampled" else None
            if kl is not None:
                names = [prompt.id for prompt in batch.prompts]
                self.guard.see("the KL to the reference", kl[real].sum(), partial(list, names))
            real &= ~scores.isnan()
            prefix = "" if kl is not None else "greedy_"
            self._update_means(f"{prefix}score", scores[real])
            self._update_means(f"{prefix}eos_rate", rollout.finished[real].float())
            if kl is not None:
                self._update_means("kl", kl[real])
                self._update_means("response_length", rollout.response_mask[real].sum(1).float())
            for row in torch.arange(len(samples))[real.cpu()].tolist():
                self.samples.append(
                    {
                        "step": self.global_step,
                        "phase": self.current_epoch,
                        "kind": kind,
                        "prompt": samples[row].prompt.text,
                        "response": samples[row].response,
                        "score": float(scores[row]),
                        "kl": float(kl[row]) if kl is not None else None,
                        "tokens": len(samples[row].response_tokens),
                        "finished": samples[row].finished,
                    }
                )

    def _answer(
        self, batch: PromptBatch, sampling: Sampling
    ) -> tuple[Rollout, list[Sample], Tensor]:
        rollout = roll_out(self, self.policy, batch, sampling, phase=0)
        samples = to_samples(rollout, batch.prompts, self.tokenizer, self.template)
        return rollout, samples, self.frozen.reward.score(samples)

    def _sequence_kl(self, rollout: Rollout) -> Tensor:
        policy = response_logprobs(self.policy, rollout, self.sampling.temperature).logprobs
        difference = policy - self.reference_logprobs(rollout)
        return difference.masked_fill(~rollout.response_mask, 0.0).sum(1)

    def _update_means(self, name: str, values: Tensor) -> None:
        # Also without values: a rank that never updated would not take part in the mean.
        self.val_metrics[name].update(values.float())  # type: ignore[operator]

    def on_validation_epoch_end(self) -> None:
        """Log the means over all prompts."""
        self._log_means("val")

    def test_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """The same on test prompts."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the means over all prompts."""
        self._log_means("test")

    def _log_means(self, prefix: str) -> None:
        self.guard.check(self)
        abstained: Any = self.val_metrics["abstained"]
        if abstained.update_called:
            check_abstained(float(abstained.compute()))
        for name, metric in self.val_metrics.items():
            assert isinstance(metric, MeanMetric)
            if metric.update_called:
                self.log(f"{prefix}/{name}", metric.compute(), prog_bar=name == "score")
            metric.reset()

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[dict[str, Any]]:
        """K responses a prompt."""
        return predict_rows(self, self.policy, batch, self.sampling)

    # -- artefact

    def export(self, path: Path, config: dict[str, Any], metrics: dict[str, float]) -> None:
        """Write the policy, and in its folder ``ema`` (the averaged policy) and the value."""
        save_policy(
            self.policy,
            self.tokenizer,
            path,
            stage=self.stage,
            template=self.template,
            parent=self.init_from,
            config=config,
            metrics=metrics,
        )
        if self.ema_decay is not None:
            with self.ema.applied(self.policy):
                save_policy(
                    self.policy,
                    self.tokenizer,
                    path / "ema",
                    stage=self.stage,
                    template=self.template,
                    parent=self.init_from,
                    config=config,
                    metrics={},
                )
        if self.shared_value:
            save_file(self.value_head.state_dict(), path / VALUE_HEAD)
        else:
            save_scalar(
                self.value_model,
                self.tokenizer,
                path / "value",
                stage="value",
                template=self.template,
                parent=self.value.init_from or self.init_from,
                config=config,
                metrics={},
            )
