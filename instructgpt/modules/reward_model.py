"""A reward model: how it is made from what a stage starts from, and where its scores are zero."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from instructgpt.functional.layout import Layout
from instructgpt.functional.losses import decided_pairs
from instructgpt.models.artefact import read_artefact
from instructgpt.models.heads import Heads, ScalarModel, score_head
from instructgpt.models.load import Network, load_scalar
from instructgpt.models.support import hidden_width
from instructgpt.models.trained import FrozenTrunk, Trained, attach
from instructgpt.modules.origins import starts_from
from instructgpt.types import (
    ComparisonBatch,
    Diagnosis,
    FlatRows,
    LanguageBatch,
    Origin,
    Tell,
    UserError,
    require,
)


class Source(NamedTuple):
    """What a reward model is loaded from, and how."""

    init_from: str | None
    architecture: dict[str, Any] | None
    network: Network
    tokenizer: PreTrainedTokenizerBase
    dropout: float | None


def build_reward(
    source: Source, trained: Trained | None, heads: int, tell: Tell
) -> tuple[ScalarModel, dict[str, Origin]]:
    """A reward model to be trained, and the weights that it starts from, without new heads.

    The head of an earlier reward model is kept, unless it reads something else than is asked for.

    Args:
        source: of the weights.
        trained: what of it is; None: everything.
        heads: on it.
        tell: told of a head that is not kept.

    Raises:
        UserError: the earlier reward model has another number of heads.
    """
    init_from, architecture, network, tokenizer, dropout = source
    if init_from is None and isinstance(trained, FrozenTrunk):
        raise UserError("model.init_from must be given with --model.trained FrozenTrunk, got null")
    artefact = read_artefact(init_from) if init_from else None
    stored = artefact is not None and artefact.head is not None
    model = load_scalar(
        init_from,
        architecture,
        network,
        tokenizer,
        head="stored" if stored else "new",
        dropout=dropout,
    )
    origins, before = starts_from(init_from, model if stored else model.trunk), model.head
    if model.features is not None and not isinstance(trained, FrozenTrunk):
        model.features, model.head = None, score_head(hidden_width(model.config))
    model = attach(model, trained, network.quantization)
    if stored and model.head is not before:
        origins = starts_from(init_from, model.trunk)
        what, why = f"the head in '{init_from}' reads something else", "a new one is trained"
        remedy = "give --model.trained as that reward model was trained to keep it"
        tell(Diagnosis("reward_head", what, why, remedy))
    elif stored:
        rule = f"{model.heads}, as '{init_from}' has"
        require(heads == model.heads, "model.heads", rule, heads)
        return model, origins
    if heads > 1:
        width = next(model.head.parameters()).shape[1]
        model.head = Heads.drawn(heads, width) if model.features is None else Heads(heads, width)
    return model, origins


def margin_spread(each: Tensor, batch: ComparisonBatch) -> Tensor:
    """Deviation over the heads of the margin of each decided pair, [M]; their zeros do not matter.

    Args:
        each: scores of every head, [B, K, H].
        batch: ranked responses.
    """
    rows, winners, losers = decided_pairs(batch.ranking, batch.ranking_mask).nonzero(as_tuple=True)
    return (each[rows, winners] - each[rows, losers]).std(-1, correction=0)


def demonstration_scores(model: ScalarModel, batch: LanguageBatch) -> Tensor:
    """What each head says of demonstrations, [n, H]; not of a row that fills up a batch.

    Args:
        model: that reads them.
        batch: of demonstrations, whose responses are its targets.
    """
    rows, real = batch.rows, batch.targets[batch.rows.layout.last]
    if model.features is None:
        return model.each(rows)[real]
    layout = rows.layout
    counts = torch.zeros(len(layout.lengths), dtype=torch.int64)
    counts.index_add_(0, layout.segments.cpu(), batch.targets.cpu().long())
    apart = Layout.shared(
        (layout.lengths - counts).tolist(), [[count] for count in counts.tolist()]
    )
    scores = model.each(FlatRows(rows.tokens, apart.to(rows.tokens.device)))
    return scores[(apart.parents >= 0).to(scores.device)][real]


@torch.no_grad()
def align(model: ScalarModel, means: Tensor) -> None:
    """Give all heads the same mean, so that they differ in what they say of a response alone.

    Args:
        model: with several heads.
        means: [H] of what each says of some responses.
    """
    if isinstance(model.head, Heads):
        model.head.shift += (means - means.mean()).to(model.head.shift)
