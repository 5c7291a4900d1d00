"""Step 2: the reward model, trained on K-wise rankings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import MeanMetric

from instructgpt.algorithms.base import RankingAlgorithm
from instructgpt.algorithms.kwise import KWise
from instructgpt.algorithms.schedule import Cosine, Schedule
from instructgpt.functional.ranking import correct_shares
from instructgpt.models.artefact import save_scalar
from instructgpt.models.heads import Heads
from instructgpt.models.load import Network
from instructgpt.models.trained import FrozenTrunk, Trained
from instructgpt.modules.base import Monitor, StageModule
from instructgpt.modules.bootstrap import bootstrap_counts, ensemble_loss
from instructgpt.modules.fits import check_context, check_quantization
from instructgpt.modules.kept_features import KeptFeatures, keep_features
from instructgpt.modules.memory import Memory, trunk_needs
from instructgpt.modules.optimizer import PaperAdam
from instructgpt.modules.piece_sizes import Size, largest_piece
from instructgpt.modules.ranking_metrics import RankingMetrics, prompt_names
from instructgpt.modules.reward_model import (
    Source,
    align,
    build_reward,
    demonstration_scores,
    margin_spread,
)
from instructgpt.modules.ridge import Ridge, ridge_of
from instructgpt.modules.row_scores import RowScores
from instructgpt.modules.sharding import sharding_of
from instructgpt.modules.trained import has_trainer
from instructgpt.modules.work import Cost, MeanRow, asked, learned, rows_of
from instructgpt.types import (
    ComparisonBatch,
    LanguageBatch,
    RunFailedError,
    UserError,
    require,
)

ALIGNED_ON = 128
"""Rows whose responses have the same mean score by every head, without demonstrations."""


class RewardModule(StageModule):
    """Reward model on K-wise rankings (step 2 and eq. 1 of arXiv:2203.02155).

    Args:
        init_from: folder of an earlier stage (``runs/…/export``), of a Hugging Face model, or a hub
            id; an earlier reward model keeps its head, anything else gets a new one.
        architecture: instead of ``init_from``, a transformers configuration to start from scratch.
        tokenizer: folder or hub id of the tokenizer; that of ``init_from`` unless given.
        network: number format, attention kernel, gradient checkpointing.
        trained: what is trained beside the head: LoRA, Prefix, LastLayers, or with FrozenTrunk
            nothing, which takes minutes; null: all weights.
        heads: on one trunk, each learning from its own sample of the prompts, with repetition
            (bootstrap); the score is their mean, and their spread says how sure they are.
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
        heads: int = 1,
        optimizer: OptimizerCallable = lambda p: PaperAdam(p, lr=9e-6),
        schedule: Schedule = Cosine(),
        algorithm: RankingAlgorithm = KWise(),
        dropout: float | None = 0.0,
    ) -> None:
        super().__init__(init_from, architecture, tokenizer, network, trained, optimizer, schedule)
        require(dropout is None or 0 <= dropout < 1, "model.dropout", "in [0, 1)", dropout)
        check_quantization(network, trained is not None)
        require(heads >= 1, "model.heads", ">= 1", heads)
        self.algorithm = algorithm
        self.heads = heads
        self.dropout = dropout
        self.ranking = RankingMetrics()
        self.row_scores = RowScores()
        self.kept: dict[str, KeptFeatures] = {}  # of a frozen trunk, by split
        self.ridge: Ridge | None = None  # of its head
        self.seconds_of_features = 0.0

    def check_data(self, data: Any, predicts: bool) -> None:
        """Refuse also rows that are not there to be read beforehand."""
        super().check_data(data, predicts)
        if not predicts and data.streaming and isinstance(self.trained, FrozenTrunk):
            raise UserError(
                "--data.streaming must be false with --model.trained FrozenTrunk, which reads all "
                "rows beforehand, got true"
            )

    def build(self) -> None:
        """Load the trunk, with the head of an earlier reward model or a new one."""
        spread = has_trainer(self) and sharding_of(self.trainer) is not None
        if spread and isinstance(self.trained, FrozenTrunk):
            raise UserError(
                "--trainer.strategy must not be fsdp2 with --model.trained FrozenTrunk, of which "
                "nothing learns that is worth spreading: give ddp"
            )
        source = Source(
            self.init_from, self.architecture, self.network, self.tokenizer, self.dropout
        )
        self.model, origins = build_reward(source, self.trained, self.heads, self.tell)
        self.origins |= origins
        check_context(self.model.trunk, self.data.row_tokens)
        self.val_loss, self.val_disagreement = MeanMetric(), MeanMetric()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """A head on a frozen trunk has a rate of its own, and a ridge instead of weight decay."""
        groups = super().parameter_groups()
        if isinstance(self.trained, FrozenTrunk):
            groups[0] |= {"lr": self.trained.lr, "weight_decay": 0.0}
        return groups

    def get_ready(self) -> None:
        """Have the features of a frozen trunk, where the head is trained on them."""
        super().get_ready()
        self.kept = {}
        self.ridge = None
        fits = self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.fast_dev_run  # type: ignore[attr-defined]
        if fits and isinstance(self.trained, FrozenTrunk):
            self.kept, self.seconds_of_features = keep_features(self, self.model)
            head, kept = self.model.head, self.kept["train"]
            assert isinstance(head, Heads)
            if not head.standardised:
                head.standardise(kept.values)
            self.ridge = ridge_of(self.trained.ridge, kept, self.data.train_rows, head)

    def trained_networks(self) -> Sequence[nn.Module]:
        """The reward model."""
        return [self.model]

    def memory(self) -> Memory:
        """An update on the largest piece of a batch of the first epoch."""
        rows, loader = self.data.train_rows, self.data.train_dataloader()
        batches = ([Size.shared(*rows.sizes(row)) for row in batch] for batch in loader.batches(0))
        piece, several = largest_piece(batches, self.network.max_tokens)
        needs = trunk_needs(self.model.trunk, piece, self.trainer.precision)
        found = super().memory().updating(needs, several)
        held = sum(one.values.nbytes for one in self.kept.values())
        return found._replace(frozen={"features": held}) if held else found

    def work(self, steps: int) -> list[Cost]:
        """Of the rows of all steps; of a frozen trunk, of all rows once."""
        rows, trunk = self.data.train_rows, self.model.trunk
        seen, count = MeanRow.of(map(rows.sizes, range(len(rows)))), rows_of(self, steps)
        if isinstance(self.trained, FrozenTrunk):
            return [Cost("features", len(rows) * seen.tokens, len(rows) * asked(trunk, seen))]
        return [Cost("updates", count * seen.tokens, count * learned(trunk, seen))]

    def plan(self) -> list[tuple[str, str]]:
        """Say also how many heads there are."""
        several = [("heads", f"{self.heads}, each on its own sample of the prompts")]
        return super().plan() + (several if self.heads > 1 else [])

    # -- training

    def each(self, batch: ComparisonBatch, split: str = "") -> Tensor:
        """Scores of every head for every prompt's responses, [B, K, H].

        Args:
            batch: in which a prompt is read once for all of its responses.
            split: whose features were computed before; others are computed now.
        """
        if split in self.kept:
            return self.model.read(self.kept[split].of(batch))
        return self.model.each(batch.rows)[batch.responses]

    def scores(self, batch: ComparisonBatch) -> Tensor:
        """Scores of every prompt's responses, [B, K], computed now: the means of the heads."""
        return self.each(batch).mean(-1)

    def training_step(self, batch: ComparisonBatch, batch_idx: int) -> Tensor:
        """All C(K, 2) pairs of a prompt are one batch element: each response is computed once."""
        pieces = batch.pieces(self.network.max_tokens)
        return self.pieces.one_by_one(self, [partial(self._loss, piece) for piece in pieces])

    def _loss(self, batch: ComparisonBatch) -> Tensor:
        scores, ranked = self.each(batch, "train"), (batch.ranking, batch.ranking_mask)
        if self.heads == 1:
            alone = scores.squeeze(-1)
            total, count = self.algorithm.loss(alone, *ranked)
            correct = correct_shares(alone.detach(), *ranked).sum()
        else:
            counts = bootstrap_counts(prompt_names(batch), self.heads, self.data.seed)
            total, count, correct = ensemble_loss(self.algorithm, scores, *ranked, counts)
        if self.ridge is not None:
            total = total + count * self.ridge.penalty(self.model.head.get_parameter("weight"))
        return self.summed_loss(total, count, lambda: batch.ids, sums={"accuracy": correct})

    # -- evaluation

    def validation_step(self, batch: ComparisonBatch, batch_idx: int) -> None:
        """Collect the loss and the decided pairs."""
        for piece in self.pieces.as_many(self, batch.pieces(self.network.max_tokens)):
            each = self.each(piece, "validation")
            if not self.pieces.counts:
                continue
            scores = each.mean(-1)
            total, count = self.algorithm.loss(scores, piece.ranking, piece.ranking_mask)
            self.guard.see("the validation loss", total, partial(list, piece.ids))
            self.val_loss.update(total / count.clamp_min(1), count)
            self.ranking.update(piece, scores)
            self.row_scores.update(piece, scores)
            if self.heads > 1:
                self.val_disagreement.update(margin_spread(each, piece))

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
        if self.val_disagreement.update_called:
            self.log(f"{prefix}/disagreement", self.val_disagreement.compute())
        self.val_loss.reset()
        self.val_disagreement.reset()
        self.ranking.log(self, prefix)
        self.row_scores.gather(self.trainer.global_step)

    def predict_step(self, batch: ComparisonBatch, batch_idx: int) -> list[dict[str, Any]]:
        """Scores of every prompt's responses."""
        parts = [self.each(piece) for piece in batch.pieces(self.network.max_tokens)]
        each, mask = torch.cat(parts).cpu(), batch.ranking_mask.cpu()
        scores = each.mean(-1)
        for name, row, real in zip(batch.ids, scores, mask, strict=True):
            if not bool(row[real].isfinite().all()):
                raise RunFailedError(
                    f"the scores of sample {name} are not finite, got {row[real].tolist()}"
                )
        spread = each.std(-1, correction=0)
        return [
            {"id": name, "scores": row[real].tolist()}
            | ({"disagreement": apart[real].tolist()} if self.heads > 1 else {})
            for name, row, apart, real in zip(batch.ids, scores, spread, mask, strict=True)
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
        several = self.heads > 1
        if loader is None and (not several or self.model.features is not None):
            return  # heads on standardised features have the same mean
        was = self.model.training
        self.model.eval()
        with torch.no_grad(), self.trainer.precision_plugin.val_step_context():
            means = self._mean_scores(loader or self._some_responses())
        if several:
            align(self.model, means)
        if loader is not None:
            # Float32 also where the weights are not: it is a mean of many scores.
            self.model.offset.data = means.mean(0, keepdim=True)
        self.model.train(was)

    def _some_responses(self) -> Any:
        """A loader of a few rows, on which heads get the same mean where there is nothing else."""
        rows = self.data.validation_rows if self.data.streaming else self.data.train_rows
        return self.data.evaluation_loader(rows[:ALIGNED_ON])

    def _mean_scores(self, loader: Any) -> Tensor:
        """The mean of what each head says of responses, [H], over all ranks."""
        sums = torch.zeros(self.heads + 1, dtype=torch.float32, device=self.device)
        for number, batch in enumerate(loader, 1):
            batch = self.transfer_batch_to_device(batch, self.device, 0)
            for piece in batch.pieces(self.network.max_tokens):
                if isinstance(piece, LanguageBatch):
                    found = demonstration_scores(self.model, piece)
                else:
                    found = self.each(piece)[piece.ranking_mask]
                each = [*found.unbind(1), torch.ones_like(found[:, 0])]
                sums += torch.stack([one.sum() for one in each])
            self.progress("offset", number, len(loader))
        *totals, count = self.all_sum(sums).tolist()
        if not all(map(math.isfinite, totals)):
            raise RunFailedError(f"the scores of the demonstrations add up to {sum(totals)}")
        means = [one / count for one in totals]
        return torch.tensor(means, dtype=torch.float32, device=self.device)

    def export(self, path: Path, config: dict[str, Any], metrics: dict[str, float]) -> None:
        """Write the reward model with its offset."""
        save_scalar(
            self.model,
            self.tokenizer,
            path,
            stage=self.stage,
            template=self.template,
            parent=self.init_from,
            parent_digest=came.digest if (came := self.origins.get("model.init_from")) else None,
            config=config,
            metrics=metrics,
            data=self.data.used(),
        )
