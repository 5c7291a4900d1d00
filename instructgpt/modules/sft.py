"""Step 1: supervised fine-tuning on demonstrations; also pretraining on text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MeanMetric

from instructgpt.algorithms.schedule import Cosine, Schedule
from instructgpt.functional.losses import cross_entropy_loss
from instructgpt.models.adapters import Adapter, attach
from instructgpt.models.artefact import save_policy
from instructgpt.models.forward import base_network, run
from instructgpt.models.load import Network, is_recurrent, load_policy
from instructgpt.modules.base import Monitor, StageModule
from instructgpt.modules.finite import Ids, together
from instructgpt.modules.memory import (
    Need,
    activation_bytes,
    logit_bytes,
    number_size,
    shape_of,
)
from instructgpt.modules.optimizer import PaperAdam
from instructgpt.modules.respond import first, predict_rows, respond
from instructgpt.rewards.base import RewardFunction, check_abstained
from instructgpt.rollout.sampler import Sampling
from instructgpt.types import LanguageBatch, Origin, PromptBatch, Sample, UserError


class SFTModule(StageModule):
    """Supervised fine-tuning of a language model (step 1 of arXiv:2203.02155), and its pretraining.

    Args:
        init_from: folder of an earlier stage (``runs/…/export``), of a Hugging Face model, or a hub
            id.
        architecture: instead of ``init_from``, a transformers configuration to start from scratch,
            such as ``{model_type: gpt2, n_layer: 4, n_embd: 256, n_head: 4}``; the vocabulary size
            is the tokenizer's.
        tokenizer: folder or hub id of the tokenizer; that of ``init_from`` unless given.
        network: number format, attention kernel, gradient checkpointing.
        adapter: train a LoRA or Prefix adapter instead of all weights.
        optimizer: makes the optimizer; ``--model.optimizer.lr`` sets the learning rate (paper,
            1.3B: 9.65e-6).
        schedule: of the learning rate; the paper's cosine to 10 % without warmup by default.
        dropout: residual dropout (paper: 0.2); null keeps what the model's configuration says.
        reward: scores sampled answers to validation prompts; then the checkpoint with the best
            score is kept (the paper's rule), else the one with the lowest validation loss.
        validation_prompts: validation prompts to answer at each validation, for people to read and
            for ``reward`` to score; 0 switches it off.
        sampling: how answers are drawn.
    """

    stage = "sft"
    batch_type = LanguageBatch
    predict_type = PromptBatch
    data_module = "DemonstrationDataModule or TextDataModule"
    predict_data = "PromptDataModule"

    def __init__(
        self,
        init_from: str | None = None,
        architecture: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        network: Network = Network(),
        adapter: Adapter | None = None,
        optimizer: OptimizerCallable = lambda p: PaperAdam(p, lr=9.65e-6),
        schedule: Schedule = Cosine(),
        dropout: float | None = 0.2,
        reward: RewardFunction | None = None,
        validation_prompts: int = 16,
        sampling: Sampling = Sampling(),
    ) -> None:
        super().__init__(init_from, architecture, tokenizer, network, adapter, optimizer, schedule)
        if dropout is not None and not 0 <= dropout < 1:
            raise UserError(f"model.dropout must be in [0, 1), got {dropout}")
        if reward is not None and validation_prompts < 1:
            raise UserError(
                "model.validation_prompts must be >= 1 for model.reward to select a checkpoint, "
                f"got {validation_prompts}"
            )
        self.dropout = dropout
        self.reward = (
            [reward] if reward is not None else []
        )  # a list hides its networks from Lightning
        self.validation_prompts = validation_prompts
        self.sampling = sampling
        self.monitor = Monitor("val/score", "max") if reward else Monitor("val/loss", "min")

    def build(self) -> None:
        """Load the policy and the metrics."""
        policy = load_policy(
            self.init_from, self.architecture, self.network, self.tokenizer, self.dropout
        )
        self.starts_from(policy)
        self.policy: nn.Module = attach(policy, self.adapter) if self.adapter else policy
        self.val_loss, self.val_accuracy, self.val_score = MeanMetric(), MeanMetric(), MeanMetric()
        self.val_abstained = MeanMetric()

    def setup(self, stage: str) -> None:
        """Load the reward function's networks, which a checkpoint is compared with."""
        super().setup(stage)
        for reward in self.reward if stage != "predict" else ():
            reward.prepare(self.tokenizer, self.template, self.device)

    def all_origins(self) -> dict[str, Origin]:
        """Add those of the reward function."""
        rewards = [reward.origins() for reward in self.reward]
        return super().all_origins() | {
            f"model.reward.{name}": origin for part in rewards for name, origin in part.items()
        }

    def get_ready(self) -> None:
        """Prepare the reward function on the device of the run."""
        super().get_ready()
        for reward in self.reward:
            reward.prepare(self.tokenizer, self.template, self.device)

    def configure_model(self) -> None:
        """Build, and refuse data that the architecture cannot take."""
        super().configure_model()
        config = base_network(self.policy).config
        self.check_context(self.policy)
        if getattr(self.data, "packing", False) and is_recurrent(config):
            raise UserError(
                f"data.packing must be false for {config.model_type}: its convolutions or "
                "recurrence would carry one document into the next, got true"
            )

    def trained_networks(self) -> Sequence[nn.Module]:
        """The policy."""
        return [self.policy]

    def memory_needs(self) -> list[Need]:
        """An update on the longest rows there are."""
        rows = self.data.train_rows
        longest = max(len(row.tokens) for row in rows)
        targets = max(sum(s.end - s.trained for s in row.spans) for row in rows)
        shape, count = shape_of(self.policy), self.data.batch_size
        size = number_size(self.trainer.precision, self.policy)
        kept = activation_bytes(shape, count * longest, longest, size)
        # Logits of all tokens, those of the targets, and their log-softmax.
        logits = logit_bytes(shape, count * longest, 1)
        logits += logit_bytes(shape, count * targets, 2)
        return [Need("update", "activations", kept), Need("update", "logits", logits)]

    # -- training

    def losses(self, batch: LanguageBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Summed cross-entropy, number of targets, how many of them are the most likely token."""
        logits = run(
            self.policy,
            batch.tokens,
            batch.mask,
            positions=batch.positions,
            documents=batch.documents,
            every_id=True,
        ).logits[:, :-1]
        tokens, targets = batch.tokens[:, 1:], batch.targets[:, 1:]
        total, count = cross_entropy_loss(logits, tokens, targets)
        correct = ((logits.argmax(-1) == tokens) & targets).sum()
        return total, count, correct

    def training_step(self, batch: LanguageBatch, batch_idx: int) -> Tensor:
        """Next-token cross-entropy on the targets."""
        total, count, correct = self.losses(batch)
        return self.summed_loss(total, count, self.batch_ids(batch_idx), accuracy=correct)

    def batch_ids(self, batch_idx: int) -> Ids:
        """What names the samples of a batch, if it has to: batches hold tensors only."""
        trains, epoch = self.trainer.training, self.trainer.current_epoch

        def ids() -> list[str]:
            data = self.data
            loader = data.train_dataloader() if trains else data.val_dataloader()
            return loader.ids(epoch, batch_idx)

        return ids

    # -- evaluation

    def validation_step(self, batch: LanguageBatch, batch_idx: int) -> None:
        """Collect loss and token accuracy."""
        total, count, correct = self.losses(batch)
        self.guard.see("the validation loss", total, self.batch_ids(batch_idx))
        weight = count.clamp_min(1)
        self.val_loss.update(total / weight, count)
        self.val_accuracy.update(correct / weight, count)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all targets, and answer some prompts."""
        self._log_means("val")
        if self.validation_prompts and not self.trainer.sanity_checking:
            with self.trainer.precision_plugin.val_step_context():
                self._answer_prompts()

    def test_step(self, batch: LanguageBatch, batch_idx: int) -> None:
        """Collect loss and token accuracy."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the means over all targets."""
        self._log_means("test")

    def _log_means(self, prefix: str) -> None:
        self.guard.check(self)
        if self.val_loss.update_called:
            loss = self.val_loss.compute()
            self.log(f"{prefix}/loss", loss, prog_bar=True)
            self.log(f"{prefix}/perplexity", loss.exp())
            self.log(f"{prefix}/accuracy", self.val_accuracy.compute())
        self.val_loss.reset()
        self.val_accuracy.reset()

    def _answer_prompts(self) -> None:
        left = -(-self.validation_prompts // self.trainer.world_size)
        for batch in self.data.prompt_dataloader():
            batch = self.transfer_batch_to_device(first(batch, left), self.device, 0)
            left -= len(batch.prompts)
            samples, real, values = together(self, partial(self._answer, batch))
            scores = [None if math.isnan(value) else value for value in values.tolist()]
            if self.reward:
                given = ~values.isnan()
                self.val_score.update(values[real & given].to(self.device))
                self.val_abstained.update((~given[real]).float().to(self.device))
            for row, (sample, score) in enumerate(zip(samples, scores, strict=True)):
                if real[row]:
                    self.samples.append(
                        {
                            "step": self.global_step,
                            "prompt": sample.prompt.text,
                            "response": sample.response,
                            "score": score,
                            "tokens": len(sample.response_tokens),
                            "finished": sample.finished,
                        }
                    )
            if left <= 0:
                break
        if self.reward:
            check_abstained(float(self.val_abstained.compute()))
            self.log("val/score", self.val_score.compute(), prog_bar=True)
            self.log("val/abstained", self.val_abstained.compute())
            self.val_score.reset()
            self.val_abstained.reset()

    def _answer(self, batch: PromptBatch) -> tuple[list[Sample], Tensor, Tensor]:
        """Samples, which of them are real, and their scores, NaN without a reward."""
        samples, real = respond(self, self.policy, batch, self.sampling, phase=0)
        for reward in self.reward:
            return samples, real, reward.score(samples)
        return samples, real, torch.full((len(samples),), torch.nan)

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[dict[str, Any]]:
        """K responses a prompt."""
        return predict_rows(self, self.policy, batch, self.sampling)

    # -- artefact

    def export(self, path: Path, config: dict[str, Any], metrics: dict[str, float]) -> None:
        """Write the policy."""
        save_policy(
            self.policy,
            self.tokenizer,
            path,
            stage=self.stage if self.data.has_prompts else "pretrain",
            template=self.template,
            parent=self.init_from,
            config=config,
            metrics=metrics,
        )
