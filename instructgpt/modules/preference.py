"""Learning a policy from ranked responses, without sampling: DPO and its family."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer

from instructgpt.algorithms.base import check_parts
from instructgpt.algorithms.dpo import DPO
from instructgpt.algorithms.preference import Candidates, PreferenceAlgorithm
from instructgpt.algorithms.schedule import Constant, Schedule
from instructgpt.models.artefact import save_policy
from instructgpt.models.load import Network, load_policy
from instructgpt.models.trained import Adapter, Trained, attach
from instructgpt.modules.answers import ValidationAnswers
from instructgpt.modules.base import Monitor, StageModule
from instructgpt.modules.cached import LOGPROBS, Begun, keeping, kept_path, read_kept, write_kept
from instructgpt.modules.candidates import (
    accuracy_and_margin,
    candidates,
    chosen_and_rejected,
    in_columns,
    response_logprobs,
)
from instructgpt.modules.finite import Ids, everyones
from instructgpt.modules.fits import check_context, check_quantization
from instructgpt.modules.held import bytes_beside
from instructgpt.modules.kept import Kept
from instructgpt.modules.means import Means
from instructgpt.modules.memory import (
    WITHOUT_ADAPTER,
    Memory,
    update_needs,
    where,
)
from instructgpt.modules.optimizer import PaperAdam
from instructgpt.modules.origins import starts_from
from instructgpt.modules.piece_sizes import Size, largest_piece
from instructgpt.modules.ranking_metrics import RankingMetrics
from instructgpt.modules.reference import Reference
from instructgpt.modules.respond import predict_rows
from instructgpt.modules.sharding import gathered, shard_stage
from instructgpt.modules.starting import without_weights
from instructgpt.modules.tensor_ranks import refuse_cut_layers
from instructgpt.modules.work import Cost, MeanRow, asked, learned, rows_of
from instructgpt.rewards.base import RewardFunction
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.scoring import Networks
from instructgpt.types import (
    ComparisonBatch,
    PromptBatch,
    Rollout,
    UserError,
    require,
)


class PreferenceModule(StageModule):
    """A policy learned from rankings of K >= 2 responses a prompt, with ties: DPO and its family.

    The algorithm scores a response by the log-probabilities of its tokens under the policy and
    under the reference, which is the policy that training starts from. Logged are, as in TRL,
    ``rewards/chosen`` and ``rewards/rejected`` (mean scores of the winners and of the losers of
    decided pairs; of good and bad rows), ``logprobs/chosen`` and ``logprobs/rejected`` (TRL's
    ``logps``), ``accuracy`` (``rewards/accuracies``) and ``margin`` (``rewards/margins``); in
    validation also those of the reward model (per K, labeler and set, calibration), and ``kl``, the
    KL to the reference of sampled answers.

    Args:
        init_from: folder of the supervised policy (``runs/…/export``), of a Hugging Face model, or
            a hub id; also the reference.
        tokenizer: folder or hub id of the tokenizer; that of ``init_from`` unless given.
        network: number format, attention kernel, gradient checkpointing.
        trained: what is trained: LoRA, Prefix or LastLayers; null: all weights. With an adapter the
            reference is the policy without it, which needs no second copy.
        optimizer: makes the optimizer; ``--model.optimizer.lr`` sets the learning rate (DPO's
            authors: 1e-6, RMSprop).
        schedule: of the learning rate (DPO's authors: constant after 150 steps of warmup).
        algorithm: scores and loss of ranked responses.
        dropout: residual dropout of the policy, none by default as in DPO's authors' code; null
            keeps what the model's configuration says.
        precompute: compute the log-probabilities of the reference once, before the first step, and
            keep them in the user's cache folder, where a later run on the same rows and reference
            finds them; the reference is then not in memory, and ``kl`` is logged only where it is
            the policy without its adapter.
        reward: scores sampled answers to validation prompts; then the checkpoint with the best
            score is kept, else the one with the lowest validation loss.
        validation_prompts: validation prompts to answer at each validation, for people to read, for
            ``kl`` and for ``reward`` to score; 0 switches it off.
        sampling: how answers are drawn.
    """

    stage = "preference"
    batch_type = ComparisonBatch
    predict_type = PromptBatch
    data_module = "ComparisonDataModule"
    predict_data = "PromptDataModule"

    init_from: str

    def __init__(
        self,
        init_from: str,
        tokenizer: str | None = None,
        network: Network = Network(),
        trained: Trained | None = None,
        optimizer: OptimizerCallable = lambda p: PaperAdam(p, lr=1e-6),
        schedule: Schedule = Constant(warmup=150),
        algorithm: PreferenceAlgorithm = DPO(),
        dropout: float | None = 0.0,
        precompute: bool = False,
        reward: RewardFunction | None = None,
        validation_prompts: int = 16,
        sampling: Sampling = Sampling(),
    ) -> None:
        super().__init__(init_from, None, tokenizer, network, trained, optimizer, schedule)
        require(dropout is None or 0 <= dropout < 1, "model.dropout", "in [0, 1)", dropout)
        check_quantization(network, trained is not None or algorithm.uses_reference)
        if precompute and not algorithm.uses_reference:
            name = type(algorithm).__name__
            raise UserError(f"model.precompute must be false: {name} uses no reference, got true")
        self.algorithm = algorithm
        self.dropout = dropout
        self.precompute = precompute
        self.answers = ValidationAnswers(reward, validation_prompts, sampling)
        self.monitor = Monitor("val/score", "max") if reward else Monitor("val/loss", "min")
        self.reference = Reference()
        self.kept: dict[str, Kept] = {}  # of the reference, by split
        self.ranking = RankingMetrics()
        self.train_means, self.val_means = Means(), Means()

    @property
    def switches_off(self) -> bool:
        """Whether the policy without its adapter is the reference."""
        return isinstance(self.trained, Adapter)

    @property
    def reads_unpaired(self) -> bool:
        """Whether rows with one response, judged good or bad, can be learned from."""
        return self.algorithm.reads_unpaired

    def check_data(self, data: Any, predicts: bool) -> None:
        """Refuse also what only a reward model uses."""
        super().check_data(data, predicts)
        if not predicts and self.precompute and data.streaming:
            raise UserError(
                "--model.precompute must be false with --data.streaming, got true: it asks the "
                "reference about all rows beforehand"
            )
        if not predicts and data.demonstrations is not None:
            raise UserError(
                "--data.demonstrations is for the offset of a reward model: leave it out, got "
                f"{data.demonstrations}"
            )

    def build(self) -> None:
        """Load the policy."""
        policy = load_policy(self.init_from, None, self.network, self.tokenizer, self.dropout)
        self.origins |= starts_from(self.init_from, policy)
        self.policy: nn.Module = attach(policy, self.trained, self.network.quantization)
        check_context(self.policy, self.data.row_tokens)

    @property
    def reward_function(self) -> RewardFunction | None:
        """It scores answers to validation prompts."""
        return self.answers.reward

    def trained_networks(self) -> Sequence[nn.Module]:
        """The policy."""
        return [self.policy]

    def memory(self) -> Memory:
        """An update on the largest piece of a batch of the first epoch; the reference."""
        rows, loader = self.data.train_rows, self.data.train_dataloader()
        batches = ([Size.shared(*rows.sizes(row)) for row in batch] for batch in loader.batches(0))
        piece, several = largest_piece(batches, self.network.max_tokens)
        needs = update_needs(self.policy, piece, *where(self.trainer))
        copy, kept = self.reference.copy, self.kept.values()
        sizes = {
            "reference": 0 if copy is None else bytes_beside(copy, self.policy),
            "reference log-probabilities": sum(one.values.nbytes for one in kept),
        }
        frozen = {name: size for name, size in sizes.items() if size}
        off = self.algorithm.uses_reference and self.switches_off and not self.kept
        shared = WITHOUT_ADAPTER if off else {}
        memory = super().memory().updating(needs, several)
        return memory._replace(frozen=frozen, shared=shared, answers=self.answers.prompts > 0)

    def work(self, steps: int) -> list[Cost]:
        """Of the rows of all steps; the reference reads them each time, or all of them once."""
        rows, policy = self.data.train_rows, self.policy
        seen, count = MeanRow.of(map(rows.sizes, range(len(rows)))), rows_of(self, steps)
        costs = [Cost("updates", count * seen.tokens, count * learned(policy, seen))]
        if self.algorithm.uses_reference:
            read = len(rows) if self.precompute else count
            costs.append(Cost("reference", read * seen.tokens, read * asked(policy, seen)))
        return costs

    # -- the reference

    def get_ready(self) -> None:
        """Have the reference, or what was kept of it, where the policy is."""
        super().get_ready()
        self.kept = {}
        if not self.algorithm.uses_reference:
            return
        fits = self.trainer.state.fn == TrainerFn.FITTING
        if self.precompute and fits and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._keep_reference()
        else:
            with without_weights(self, self.trained):
                self.load_reference()
            if self.reference.copy is not None:
                shard_stage(self, [], [self.reference.copy])

    def load_reference(self) -> None:
        """Have it, unless it is the policy without its adapter."""
        if not self.switches_off:
            self.reference.load(self.init_from, self.network, self.tokenizer, self.policy)

    def _keep_reference(self) -> None:
        """Find the log-probabilities of all rows, or compute and keep them."""
        refuse_cut_layers(self.trainer, "model.precompute false")
        data, facts = self.data, self._reference_facts()
        path = kept_path(LOGPROBS, facts)
        rows = {"train": data.train_rows, "validation": data.validation_rows}
        kept = {name: Kept.empty(own.response_tokens if own else ()) for name, own in rows.items()}
        values = {name: own.values for name, own in kept.items()}
        if all(everyones(read_kept(LOGPROBS, path, values))):
            rank_zero_info(f"reference log-probabilities: found in {path}")
        else:
            self.load_reference()
            places = {name: origin.place for name, origin in data.origins.items()}
            names = {"reference": f"{self.init_from}", **places}
            for own in values.values():
                own.zero_()
            with gathered(self.trainer), keeping(LOGPROBS, self, facts, values, names) as begun:
                for name, own in rows.items():
                    self._compute_kept(name, own, kept[name], begun)
            for own in values.values():
                own.copy_(self.all_sum(own.to(self.device)))
            self.guard.check(self)
            if self.trainer.is_global_zero:
                write_kept(LOGPROBS, path, values, names)
        self.reference.copy = None
        self.kept = kept
        if not self.switches_off and self.answers.prompts:
            rank_zero_info("val/kl is not logged: model.precompute leaves no reference in memory")

    def _compute_kept(self, name: str, rows: Sequence[Any], kept: Kept, begun: Begun) -> None:
        """Each rank does a share of a split."""
        loader = self.data.evaluation_loader(rows)
        with self.trainer.precision_plugin.val_step_context():
            for done, batch in enumerate(loader, 1):
                batch = self.transfer_batch_to_device(batch, self.device, 0)
                for piece in batch.pieces(self.network.max_tokens):
                    if begun.has(name, piece.own_numbers):
                        continue
                    logprobs = self.reference.logprobs(self.policy, piece.rows)
                    ids: Ids = partial(list, piece.ids)
                    self.guard.see("a log-probability of the reference", logprobs.sum(), ids)
                    kept.put(piece, logprobs)
                    begun.add(name, piece.own_numbers)
                self.progress(f"reference of {name} rows", done, len(loader))

    def _reference_facts(self) -> dict[str, Any]:
        """All that the log-probabilities of the reference depend on."""
        data = self.data
        return {
            "format": 1,
            "rows": {name: origin.digest for name, origin in data.origins.items()},
            "reference": self.origins["model.init_from"].digest,
            "limits": [data.max_prompt_tokens, data.max_response_tokens],
            "numerics": [
                *(self.network.dtype, self.network.attention, str(self.trainer.precision)),
                *(self.device.type, self.network.quantization),
            ],
            **self.text_format(),
        }

    def reference_logprobs(self, batch: ComparisonBatch, split: str) -> Tensor | None:
        """Of the tokens of the responses, [M]; None where the algorithm uses none."""
        if not self.algorithm.uses_reference:
            return None
        if self.kept:
            return self.kept[split].of(batch)
        return self.reference.logprobs(self.policy, batch.rows)

    # -- training

    def candidates(self, batch: ComparisonBatch, split: str) -> Candidates:
        """Scores of every prompt's responses, with what the loss sees beside them."""
        reference = self.reference_logprobs(batch, split)  # first: it leaves nothing in memory
        logprobs = response_logprobs(self.policy, batch.rows)
        responses = in_columns(batch.rows.layout, logprobs, reference)
        return candidates(batch, responses, self.algorithm.scores(responses))

    def training_step(self, batch: ComparisonBatch, batch_idx: int) -> Tensor:
        """The loss of the algorithm on all K responses of each prompt, each computed once."""
        pieces = batch.pieces(self.network.max_tokens)
        return self.pieces.one_by_one(self, [partial(self._loss, piece) for piece in pieces])

    def _loss(self, batch: ComparisonBatch) -> Tensor:
        found = self.candidates(batch, "train")
        total, count, parts = self.algorithm.loss(found)
        means = accuracy_and_margin(found) | chosen_and_rejected(found)
        check_parts(self.algorithm, parts, means)
        if self.pieces.counts:
            self.train_means.add(means)
        return self.summed_loss(total, count, lambda: batch.ids, sums=parts)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log also what is no mean over the elements of the loss."""
        super().on_before_optimizer_step(optimizer)
        means = self.train_means.take(self.all_sum)
        if self.logs_step:
            self.log_dict({f"train/{name}": value for name, value in means.items()})

    # -- evaluation

    def validation_step(self, batch: ComparisonBatch, batch_idx: int) -> None:
        """Collect the loss, the decided pairs, scores and log-probabilities."""
        for piece in self.pieces.as_many(self, batch.pieces(self.network.max_tokens)):
            found = self.candidates(piece, "validation")
            if not self.pieces.counts:
                continue
            total, count, parts = self.algorithm.loss(found)
            self.guard.see("the validation loss", total, partial(list, piece.ids))
            losses = {name: (value, count) for name, value in {"loss": total, **parts}.items()}
            means = chosen_and_rejected(found)
            check_parts(self.algorithm, parts, means)
            self.val_means.add(losses | means)
            self.ranking.update(piece, found.scores)

    def on_validation_epoch_end(self) -> None:
        """Log the means and what the rankings say, and answer some prompts."""
        self._log_means("val")
        has_reference = self.algorithm.uses_reference and not (self.kept and not self.switches_off)
        self.answers.give(self, self.policy, self.sequence_kl if has_reference else None)

    def test_step(self, batch: ComparisonBatch, batch_idx: int) -> None:
        """Collect the same."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the means and what the rankings say."""
        self._log_means("test")

    def _log_means(self, prefix: str) -> None:
        self.guard.check(self)
        for name, value in self.val_means.take(self.all_sum).items():
            self.log(f"{prefix}/{name}", value, prog_bar=name == "loss")
        self.ranking.log(self, prefix)

    @torch.no_grad()
    def sequence_kl(self, rollout: Rollout) -> Tensor:
        """Log of policy over reference of each sampled response, [N]."""
        networks = Networks(self.policy, self.reference.copy or self.policy, None)
        temperature = self.answers.sampling.temperature or 1.0
        asked = (self.network.max_tokens, partial(self.pieces.as_many, self))
        kl = networks.sequence_kl(rollout, temperature, *asked)
        assert kl is not None
        return kl

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
            stage=self.stage,
            template=self.template,
            parent=self.init_from,
            config=config,
            metrics=metrics,
            data=self.data.used(),
        )
