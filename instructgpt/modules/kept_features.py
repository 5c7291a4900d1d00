"""Features of a frozen trunk for all responses of a run, computed once and kept for later runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from instructgpt.models.digest import weights_digest
from instructgpt.models.heads import ScalarModel
from instructgpt.models.transformers_private import attention_name
from instructgpt.modules.base import StageModule
from instructgpt.modules.cached import FEATURES, keeping, kept_path, read_kept, write_kept
from instructgpt.modules.finite import Ids
from instructgpt.modules.ranks import everyones
from instructgpt.types import ComparisonBatch


class KeptFeatures(NamedTuple):
    """Features of all responses of a split, one row behind the other."""

    values: Tensor  # [responses, F] float32
    starts: np.ndarray  # of the rows, and the end of the last

    @classmethod
    def empty(cls, responses: Sequence[int], width: int) -> KeptFeatures:
        """Room for those of rows with so many responses."""
        starts = np.concatenate([[0], np.cumsum(responses, dtype=np.int64)])
        return cls(torch.zeros(int(starts[-1]), width), starts)

    def put(self, batch: ComparisonBatch, features: Tensor) -> None:
        """Keep those of a batch, [S, F] of its segments; not of a row that fills it up."""
        features = features.cpu()
        ranked = batch.ranking_mask.any(1).tolist()
        for number, segments, real in zip(
            batch.numbers, batch.responses.cpu(), ranked, strict=True
        ):
            if real:
                there = segments[segments > 0]
                start = int(self.starts[number])
                self.values[start : start + len(there)] = features[there]

    def of(self, batch: ComparisonBatch) -> Tensor:
        """Those of a batch, [B, K, F]; whatever where there is no response."""
        starts = torch.from_numpy(self.starts)[batch.numbers]
        columns = torch.arange(batch.responses.shape[1])
        places = (starts[:, None] + columns).clamp_max(len(self.values) - 1)
        return self.values[places].to(batch.ranking.device)


def keep_features(module: StageModule, model: ScalarModel) -> tuple[dict[str, KeptFeatures], float]:
    """The features of the rows to train and to validate on, found or computed, and the seconds.

    Args:
        module: stage that trains a head on them; every rank must call this.
        model: with features.
    """
    assert model.features is not None
    began, data, width = time.monotonic(), module.data, model.features.width(model.trunk)
    rows = {"train": data.train_rows, "validation": data.validation_rows}
    counts = {name: [len(own.sizes(i)[1]) for i in range(len(own))] for name, own in rows.items()}
    kept = {name: KeptFeatures.empty(own, width) for name, own in counts.items()}
    values = {name: own.values for name, own in kept.items()}
    facts = _facts(module, model)
    path = kept_path(FEATURES, facts)
    if all(everyones(read_kept(FEATURES, path, values))):
        rank_zero_info(f"{FEATURES.words}: found in {path}")
        return kept, time.monotonic() - began
    tokens, places = 0, {name: origin.place for name, origin in data.origins.items()}
    names = {"trunk": f"{module.init_from}", **places}
    with keeping(FEATURES, module, facts, values, names) as begun:
        for name, own in rows.items():
            for batch in _batches(module, name, own):
                if begun.has(name, batch.own_numbers):
                    continue
                features = model.features.read(model.trunk, batch.rows)
                ids: Ids = partial(list, batch.ids)
                module.guard.see("a feature of the trunk", features.sum(), ids)
                kept[name].put(batch, features)
                begun.add(name, batch.own_numbers)
                tokens += batch.rows.layout.tokens
    for own in values.values():
        own.copy_(module.all_sum(own.to(module.device)))
    module.guard.check(module)
    seconds = time.monotonic() - began
    tokens = sum(everyones(tokens))
    rank_zero_info(
        f"{FEATURES.words}: {width:,} each of {sum(map(len, values.values())):,} responses, "
        f"{tokens:,} tokens in {seconds:.1f} s ({tokens / seconds:,.0f} tokens/s)"
    )
    if module.trainer.is_global_zero:
        write_kept(FEATURES, path, values, names)
    return kept, seconds


def _batches(module: StageModule, name: str, rows: Sequence[Any]) -> Iterator[ComparisonBatch]:
    """This rank's share of a split in pieces, with the progress."""
    loader = module.data.evaluation_loader(rows)
    for done, batch in enumerate(loader, 1):
        batch = module.transfer_batch_to_device(batch, module.device, 0)
        yield from batch.pieces(module.network.max_tokens)
        module.progress(f"features of {name} rows", done, len(loader))


def _facts(module: StageModule, model: ScalarModel) -> dict[str, Any]:
    """All that the features depend on."""
    data, features, trunk = module.data, model.features, model.trunk
    assert features is not None
    return {
        "format": 1,
        "rows": {name: origin.digest for name, origin in data.origins.items()},
        "trunk": weights_digest(trunk),
        "layers": features.layers,
        "tokens": features.tokens,
        "limits": [data.max_prompt_tokens, data.max_response_tokens],
        "numerics": [
            *(str(next(trunk.parameters()).dtype), attention_name(model.config)),
            module.device.type,
            module.network.quantization,
        ],
        **module.text_format(),
    }
