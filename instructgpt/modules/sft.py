"""Step 1: supervised fine-tuning on demonstrations; also pretraining on text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MeanMetric

from instructgpt.algorithms.schedule import Cosine, Schedule
from instructgpt.functional.intervals import Interval
from instructgpt.models.architecture import PAPERS_DROPOUT
from instructgpt.models.artefact import save_policy
from instructgpt.models.load import Network, load_policy
from instructgpt.models.trained import Adapter, Trained, attach
from instructgpt.modules.answers import ValidationAnswers
from instructgpt.modules.base import Monitor, StageModule
from instructgpt.modules.estimates import Estimates
from instructgpt.modules.finite import Ids
from instructgpt.modules.fits import check_context, check_quantization
from instructgpt.modules.language import language_loss
from instructgpt.modules.memory import Memory, update_needs, where
from instructgpt.modules.optimizer import PaperAdam
from instructgpt.modules.origins import starts_from
from instructgpt.modules.piece_sizes import Size, largest_piece
from instructgpt.modules.respond import predict_rows
from instructgpt.modules.work import Cost, MeanRow, learned, rows_of
from instructgpt.rewards.base import RewardFunction
from instructgpt.rollout.drawing import Sampling
from instructgpt.types import LanguageBatch, PromptBatch, require


class SFTModule(StageModule):
    """Supervised fine-tuning of a language model (step 1 of arXiv:2203.02155), and its pretraining.

    With an adapter, ``val/loss_fall`` is by how much it has lowered the validation loss.

    Args:
        init_from: folder of an earlier stage (``runs/…/export``), of a Hugging Face model, or a hub
            id.
        architecture: instead of ``init_from``, a transformers configuration to start from scratch,
            such as ``{model_type: gpt2, n_layer: 4, n_embd: 256, n_head: 4}``; the vocabulary size
            is the tokenizer's.
        tokenizer: folder or hub id of the tokenizer; that of ``init_from`` unless given.
        network: number format, attention kernel, gradient checkpointing.
        trained: what is trained: LoRA, Prefix or LastLayers; null: all weights.
        optimizer: makes the optimizer; ``--model.optimizer.lr`` sets the learning rate (paper,
            1.3B: 9.65e-6).
        schedule: of the learning rate; the paper's cosine to 10 % without warmup by default.
        dropout: residual dropout (paper: 0.2), where a network has any; null keeps what the model's
            configuration says.
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
        trained: Trained | None = None,
        optimizer: OptimizerCallable = lambda p: PaperAdam(p, lr=9.65e-6),
        schedule: Schedule = Cosine(),
        dropout: float | None = PAPERS_DROPOUT,
        reward: RewardFunction | None = None,
        validation_prompts: int = 16,
        sampling: Sampling = Sampling(),
    ) -> None:
        super().__init__(init_from, architecture, tokenizer, network, trained, optimizer, schedule)
        require(dropout is None or 0 <= dropout < 1, "model.dropout", "in [0, 1)", dropout)
        check_quantization(network, trained is not None)
        self.dropout = dropout
        self.estimates = Estimates()
        self.answers = ValidationAnswers(reward, validation_prompts, sampling)
        self.monitor = Monitor("val/score", "max") if reward else Monitor("val/loss", "min")

    def build(self) -> None:
        """Load the policy and the metrics."""
        policy = load_policy(
            self.init_from, self.architecture, self.network, self.tokenizer, self.dropout
        )
        self.origins |= starts_from(self.init_from, policy)
        self.policy: nn.Module = attach(policy, self.trained, self.network.quantization)
        self.val_loss, self.val_accuracy = MeanMetric(), MeanMetric()

    @property
    def reward_function(self) -> RewardFunction | None:
        """It scores answers to validation prompts."""
        return self.answers.reward

    def configure_model(self) -> None:
        """Build, and refuse rows that are longer than the context."""
        super().configure_model()
        check_context(self.policy, self.data.row_tokens)

    def trained_networks(self) -> Sequence[nn.Module]:
        """The policy."""
        return [self.policy]

    def memory(self) -> Memory:
        """An update on the largest piece of a batch of the first epoch."""
        rows, loader = self.data.train_rows, self.data.train_dataloader()
        sizes = list(map(Size.document, rows.lengths.tolist(), rows.targets.tolist()))
        batches = ([sizes[number] for number in batch] for batch in loader.batches(0))
        piece, several = largest_piece(batches, self.network.max_tokens)
        needs = update_needs(self.policy, piece, *where(self.trainer))
        found = super().memory().updating(needs, several)
        return found._replace(answers=self.answers.prompts > 0)

    def work(self, steps: int) -> list[Cost]:
        """Of the rows of all steps."""
        lengths, targets = self.data.train_rows.lengths, self.data.train_rows.targets
        sizes = zip((lengths - targets).tolist(), targets[:, None].tolist(), strict=True)
        seen, count = MeanRow.of(sizes), rows_of(self, steps)
        return [Cost("updates", count * seen.tokens, count * learned(self.policy, seen))]

    # -- training

    def training_step(self, batch: LanguageBatch, batch_idx: int) -> Tensor:
        """Next-token cross-entropy on the targets, piece by piece."""
        pieces = self.named_pieces(batch, batch_idx)
        return self.pieces.one_by_one(self, [partial(self._loss, *piece) for piece in pieces])

    def _loss(self, batch: LanguageBatch, ids: Ids) -> Tensor:
        total, count, correct = language_loss(self.policy, batch)
        return self.summed_loss(total, count, ids, sums={"accuracy": correct})

    def named_pieces(
        self, batch: LanguageBatch, batch_idx: int
    ) -> Iterator[tuple[LanguageBatch, Ids]]:
        """Parts of at most ``network.max_tokens`` tokens, with the names of their samples."""
        start = 0
        for piece in batch.pieces(self.network.max_tokens):
            end = start + len(piece.rows.layout.lengths)
            yield piece, partial(self._ids, batch_idx, start, end)
            start = end

    def _ids(self, batch_idx: int, start: int, end: int) -> list[str]:
        """Names of some samples of a batch, asked for only when needed: it holds tensors only."""
        data, trains = self.data, self.trainer.training
        loader = data.train_dataloader() if trains else data.val_dataloader()
        names: list[str] = loader.ids(self.trainer.current_epoch, batch_idx)
        return names[start:end]

    # -- evaluation

    def validation_step(self, batch: LanguageBatch, batch_idx: int) -> None:
        """Collect loss and token accuracy."""
        named = list(self.named_pieces(batch, batch_idx))
        for piece, ids in self.pieces.as_many(self, named):
            estimates = self.estimates if self.pieces.counts else Estimates()
            asked = (self.policy, piece, estimates, isinstance(self.trained, Adapter))
            total, count, correct = language_loss(*asked)
            if not self.pieces.counts:
                continue
            self.guard.see("the validation loss", total, ids)
            weight = count.clamp_min(1)
            self.val_loss.update(total / weight, count)
            self.val_accuracy.update(correct / weight, count)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all targets, and answer some prompts."""
        self._log_means("val")
        self.answers.give(self, self.policy)

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
        found = self.estimates.take(self.trainer)
        if (fall := found.get("loss_fall")) is not None:  # of the model without its adapter
            self.log(f"{prefix}/loss_fall", (fall.low + fall.high) / 2)
        if (nats := found.get("loss")) is not None:
            found["perplexity"] = Interval(math.exp(nats.low), math.exp(nats.high), nats.n)
        self.say_intervals(prefix, found)

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[dict[str, Any]]:
        """K responses a prompt."""
        return predict_rows(self, self.policy, batch, self.answers.sampling)

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
            data=self.data.used(),
        )
