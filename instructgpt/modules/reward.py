"""Step 2: the reward model, trained on K-wise rankings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import MeanMetric

from instructgpt.algorithms.base import RankingAlgorithm
from instructgpt.algorithms.kwise import KWise
from instructgpt.algorithms.schedule import Cosine, Schedule
from instructgpt.functional.ranking import correct_shares
from instructgpt.models.artefact import read_artefact, save_scalar
from instructgpt.models.load import Network, load_scalar
from instructgpt.models.trained import Trained, attach
from instructgpt.modules.base import Monitor, StageModule
from instructgpt.modules.fits import check_context, check_quantization
from instructgpt.modules.memory import Memory, Need, activation_bytes, number_size, shape_of
from instructgpt.modules.optimizer import PaperAdam
from instructgpt.modules.origins import starts_from
from instructgpt.modules.piece_sizes import Size, largest_piece
from instructgpt.modules.ranking_metrics import RankingMetrics
from instructgpt.modules.row_scores import RowScores
from instructgpt.types import ComparisonBatch, RunFailedError, require


class RewardModule(StageModule):
    """Reward model on K-wise rankings (step 2 and eq. 1 of arXiv:2203.02155).

    Args:
        init_from: folder of an earlier stage (``runs/…/export``), of a Hugging Face model, or a hub
            id; an earlier reward model keeps its head, anything else gets a new one.
        architecture: instead of ``init_from``, a transformers configuration to start from scratch.
        tokenizer: folder or hub id of the tokenizer; that of ``init_from`` unless given.
        network: number format, attention kernel, gradient checkpointing.
        trained: what is trained beside the head: LoRA or Prefix; null: all weights.
        optimizer: makes the optimizer; ``--model.optimizer.lr`` sets the learning rate (paper:
            9e-6).
        schedule: of the learning rate; the paper's cosine to 10 % by default.
        algorithm: loss on ranked scores.
        dropout: residual dropout; the paper does not say, its ancestors train without.
    """

    stage = "reward"
    batch_type = ComparisonBatch
    predict_type = ComparisonBatch
    data_module = predict_data = "ComparisonDataModule"
    monitor = Monitor("val/accuracy", "max")

    def __init__(
        self,
        init_from: str | None = None,
        architecture: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        network: Network = Network(),
        trained: Trained | None = None,
        optimizer: OptimizerCallable = lambda p: PaperAdam(p, lr=9e-6),
        schedule: Schedule = Cosine(),
        algorithm: RankingAlgorithm = KWise(),
        dropout: float | None = 0.0,
    ) -> None:
        super().__init__(init_from, architecture, tokenizer, network, trained, optimizer, schedule)
        require(dropout is None or 0 <= dropout < 1, "model.dropout", "in [0, 1)", dropout)
        check_quantization(network, trained is not None)
        self.algorithm = algorithm
        self.dropout = dropout
        self.ranking = RankingMetrics()
        self.row_scores = RowScores()

    def build(self) -> None:
        """Load the trunk, with the head of an earlier reward model or a new one."""
        artefact = read_artefact(self.init_from) if self.init_from else None
        stored = artefact is not None and artefact.head is not None
        model = load_scalar(
            self.init_from,
            self.architecture,
            self.network,
            self.tokenizer,
            head="stored" if stored else "new",
            dropout=self.dropout,
        )
        self.origins |= starts_from(self.init_from, model if stored else model.trunk)
        self.model = attach(model, self.trained, self.network.quantization)
        check_context(self.model.trunk, self.data.row_tokens)
        self.val_loss = MeanMetric()

    def trained_networks(self) -> Sequence[nn.Module]:
        """The reward model."""
        return [self.model]

    def memory(self) -> Memory:
        """An update on the largest piece of a batch of the first epoch."""
        rows, loader = self.data.train_rows, self.data.train_dataloader()
        batches = ([Size.shared(*rows.sizes(row)) for row in batch] for batch in loader.batches(0))
        piece, several = largest_piece(batches, self.network.max_tokens)
        size = number_size(self.trainer.precision, self.model)
        kept = activation_bytes(shape_of(self.model.trunk), piece, size)
        return super().memory().updating([Need("update", "activations", kept)], several)

    # -- training

    def scores(self, batch: ComparisonBatch) -> Tensor:
        """Scores of every prompt's responses, [B, K]; a prompt is read once for all of them."""
        scores: Tensor = self.model.score(batch.rows)
        return scores[batch.responses]

    def training_step(self, batch: ComparisonBatch, batch_idx: int) -> Tensor:
        """All C(K, 2) pairs of a prompt are one batch element: each response is computed once."""
        pieces = batch.pieces(self.network.max_tokens)
        return self.pieces.one_by_one(self, [partial(self._loss, piece) for piece in pieces])

    def _loss(self, batch: ComparisonBatch) -> Tensor:
        scores = self.scores(batch)
        total, count = self.algorithm.loss(scores, batch.ranking, batch.ranking_mask)
        correct = correct_shares(scores.detach(), batch.ranking, batch.ranking_mask).sum()
        return self.summed_loss(total, count, lambda: batch.ids, sums={"accuracy": correct})

    # -- evaluation

    def validation_step(self, batch: ComparisonBatch, batch_idx: int) -> None:
        """Collect the loss and the decided pairs."""
        for piece in batch.pieces(self.network.max_tokens):
            scores = self.scores(piece)
            total, count = self.algorithm.loss(scores, piece.ranking, piece.ranking_mask)
            self.guard.see("the validation loss", total, partial(list, piece.ids))
            self.val_loss.update(total / count.clamp_min(1), count)
            self.ranking.update(piece, scores)
            self.row_scores.update(piece, scores)

    def test_step(self, batch: ComparisonBatch, batch_idx: int) -> None:
        """Collect the decided pairs."""
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log accuracy and calibration."""
        self._log_pairs("val")

    def on_test_epoch_end(self) -> None:
        """Log accuracy and calibration."""
        self._log_pairs("test")

    def _log_pairs(self, prefix: str) -> None:
        self.guard.check(self)
        if self.val_loss.update_called:
            self.log(f"{prefix}/loss", self.val_loss.compute())
        self.val_loss.reset()
        self.ranking.log(self, prefix)
        self.row_scores.gather(self.trainer.global_step)

    def predict_step(self, batch: ComparisonBatch, batch_idx: int) -> list[dict[str, Any]]:
        """Scores of every prompt's responses."""
        parts = [self.scores(piece) for piece in batch.pieces(self.network.max_tokens)]
        scores, mask = torch.cat(parts).cpu(), batch.ranking_mask.cpu()
        for name, row, real in zip(batch.ids, scores, mask, strict=True):
            if not bool(row[real].isfinite().all()):
                raise RunFailedError(
                    f"the scores of sample {name} are not finite, got {row[real].tolist()}"
                )
        return [
            {"id": name, "scores": row[real].tolist()}
            for name, row, real in zip(batch.ids, scores, mask, strict=True)
            if real.any()
        ]

    # -- what a checkpoint holds

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the validation that a checkpoint is chosen by has scored."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["instructgpt"]["row_scores"] = self.row_scores.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        super().on_load_checkpoint(checkpoint)
        self.row_scores.restore(checkpoint["instructgpt"].get("row_scores"))

    # -- artefact

    def finalize(self) -> None:
        """Set the offset with which demonstrations score 0 on average (paper, section 3.5)."""
        loader = self.data.demonstration_dataloader()
        with torch.no_grad():
            if loader is None and float(self.model.offset):
                rank_zero_warn(
                    "the offset of the reward model this one started from no longer holds: "
                    "measure it anew with --data.demonstrations"
                )
            self.model.offset.zero_()
        if loader is None:
            return
        was, sums = self.model.training, torch.zeros(2, dtype=torch.float32, device=self.device)
        self.model.eval()
        with torch.no_grad(), self.trainer.precision_plugin.val_step_context():
            for number, batch in enumerate(loader, 1):
                batch = self.transfer_batch_to_device(batch, self.device, 0)
                for piece in batch.pieces(self.network.max_tokens):
                    real = piece.targets[piece.rows.layout.last]
                    sums += torch.stack([self.model.score(piece.rows)[real].sum(), real.sum()])
                self.progress("offset", number, len(loader))
            total, count = self.all_sum(sums).tolist()
        # Float32 also where the weights are not: it is a mean of many scores.
        if not math.isfinite(total):
            raise RunFailedError(f"the scores of the demonstrations add up to {total}")
        mean = torch.tensor([total / count], dtype=torch.float32, device=self.device)
        self.model.offset.data = mean
        self.model.train(was)

    def export(self, path: Path, config: dict[str, Any], metrics: dict[str, float]) -> None:
        """Write the reward model with its offset."""
        save_scalar(
            self.model,
            self.tokenizer,
            path,
            stage=self.stage,
            template=self.template,
            parent=self.init_from,
            config=config,
            metrics=metrics,
            data=self.data.used(),
        )
