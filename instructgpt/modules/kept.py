"""Log-probabilities of the reference, computed once and kept for the next run."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from instructgpt.models.folder import write_bytes
from instructgpt.types import ComparisonBatch

MADE_FROM = "made_from"
"""The name of what a file says about itself."""


class Kept(NamedTuple):
    """Log-probabilities of all response tokens of a split, one row behind the other."""

    values: Tensor  # [tokens] float32
    starts: np.ndarray  # of the rows, and the end of the last

    @classmethod
    def empty(cls, tokens: Sequence[int] | np.ndarray) -> Kept:
        """Room for those of rows whose responses have so many tokens."""
        starts = np.concatenate([[0], np.cumsum(tokens, dtype=np.int64)])
        return cls(torch.zeros(int(starts[-1])), starts)

    def places(self, batch: ComparisonBatch) -> list[slice]:
        """Where those of each prompt of a batch are."""
        starts = [int(self.starts[number]) for number in batch.numbers]
        sizes = batch.response_tokens.tolist()
        return [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]

    def put(self, batch: ComparisonBatch, logprobs: Tensor) -> None:
        """Keep those of a batch, [M]; not of a row that fills it up, whose place is another's."""
        parts = logprobs.cpu().split(batch.response_tokens.tolist())
        ranked = batch.ranking_mask.any(1).tolist()
        for place, values, real in zip(self.places(batch), parts, ranked, strict=True):
            if real:
                self.values[place] = values

    def of(self, batch: ComparisonBatch) -> Tensor:
        """Those of a batch, [M], where the batch is."""
        found = torch.cat([self.values[place] for place in self.places(batch)])
        return found.to(batch.ranking.device)


def kept_path(facts: Mapping[str, Any]) -> Path:
    """Where log-probabilities are kept that depend on these facts and on nothing else."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return kept_folder() / f"{digest}.safetensors"


def kept_folder() -> Path:
    """Where log-probabilities are kept, a file for each reference and set of rows."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "instructgpt", "reference_logprobs")


def made_from(path: Path) -> str:
    """What log-probabilities were computed from, "" where nobody has written it down.

    Args:
        path: of their file.

    Raises:
        SafetensorError: it is none.
    """
    with safe_open(path, "pt") as file:
        return str((file.metadata() or {}).get(MADE_FROM, ""))


def read_kept(path: Path, splits: Mapping[str, Kept]) -> bool:
    """Fill the splits from a file; False where there is none that fits.

    Args:
        path: of the file.
        splits: by name.
    """
    if not path.is_file():
        return False
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        rank_zero_warn(f"cannot read the reference log-probabilities in {path} ({error})")
        return False
    sizes = {name: kept.values.shape for name, kept in splits.items()}
    if {name: values.shape for name, values in found.items()} != sizes:
        rank_zero_warn(f"the reference log-probabilities in {path} are of other rows")
        return False
    if not all(bool(values.isfinite().all()) for values in found.values()):
        rank_zero_warn(f"the reference log-probabilities in {path} are not finite")
        return False
    for name, kept in splits.items():
        kept.values.copy_(found[name])
    with suppress(OSError):  # another's cache may be read, but not changed
        os.utime(path, (time.time(),) * 2)  # when it was used last
    return True


def write_kept(path: Path, splits: Mapping[str, Kept], names: Mapping[str, str]) -> None:
    """Keep the splits for the next run; a cache that cannot be written is no reason to stop.

    Args:
        path: of the file.
        splits: by name.
        names: of what they were computed from, for people who look.
    """
    about = "; ".join(f"{name} {place}" for name, place in names.items())  # one: they have no order
    values = {name: kept.values for name, kept in splits.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, save(values, {MADE_FROM: about}))
    except OSError as error:
        rank_zero_warn(f"the reference log-probabilities are not kept for other runs: {error}")
    else:
        rank_zero_info(f"reference log-probabilities: kept in {path}")
