"""Files of numbers that are computed once and kept for later runs, in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from instructgpt.models.folder import write_bytes

if TYPE_CHECKING:
    from instructgpt.modules.base import StageModule

MADE_FROM = "made_from"
"""The name of what a file says about itself."""
EVERY = 60.0
"""Seconds from one writing of what is begun to the next, at least."""
SHARE = 0.05
"""Of the time that writing it may take."""


class Kind(NamedTuple):
    """What the files of a folder hold."""

    folder: str
    words: str  # for people
    end: str = ".safetensors"  # of their names


LOGPROBS = Kind("reference_logprobs", "reference log-probabilities")
FEATURES = Kind("features", "features of frozen trunks")
SCORES = Kind("scores", "scores of reward models", ".jsonl")
KINDS = (LOGPROBS, FEATURES, SCORES)


def kept_folder(kind: Kind) -> Path:
    """Where they are kept, a file for each network and set of rows."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "instructgpt", kind.folder)


def kept_path(kind: Kind, facts: Mapping[str, Any]) -> Path:
    """Where numbers are kept that depend on these facts and on nothing else."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return kept_folder(kind) / f"{digest}{kind.end}"


def made_from(path: Path) -> str:
    """What numbers were computed from, "" where nobody has written it down.

    Args:
        path: of their file.

    Raises:
        SafetensorError: it is none.
    """
    with safe_open(path, "pt") as file:
        return str((file.metadata() or {}).get(MADE_FROM, ""))


def read_kept(kind: Kind, path: Path, splits: Mapping[str, Tensor]) -> bool:
    """Fill the tensors of splits from a file; False where there is none that fits.

    Args:
        kind: of what it holds.
        path: of the file.
        splits: by name.
    """
    if not path.is_file():
        return False
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        rank_zero_warn(f"cannot read the {kind.words} in {path} ({error})")
        return False
    sizes = {name: values.shape for name, values in splits.items()}
    if {name: values.shape for name, values in found.items()} != sizes:
        rank_zero_warn(f"the {kind.words} in {path} are of other rows")
        return False
    if not all(bool(values.isfinite().all()) for values in found.values()):
        rank_zero_warn(f"the {kind.words} in {path} are not finite")
        return False
    for name, values in splits.items():
        values.copy_(found[name])
    with suppress(OSError):  # another's cache may be read, but not changed
        os.utime(path, (time.time(),) * 2)  # when it was used last
    return True


def write_kept(
    kind: Kind, path: Path, splits: Mapping[str, Tensor], names: Mapping[str, str]
) -> None:
    """Keep the splits for the next run; a cache that cannot be written is no reason to stop.

    Args:
        kind: of what they are.
        path: of the file.
        splits: by name.
        names: of what they were computed from, for people who look.
    """
    try:
        _write(path, splits, names)
    except OSError as error:
        rank_zero_warn(f"the {kind.words} are not kept for other runs: {error}")
    else:
        rank_zero_info(f"{kind.words}: kept in {path}")


def _write(path: Path, splits: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    about = "; ".join(f"{name} {place}" for name, place in names.items())  # one: they have no order
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save(dict(splits), {MADE_FROM: about}))


class Begun:
    """Which rows of splits a process has computed, written down with their numbers now and then.

    Args:
        path: of the file of this process.
        splits: their numbers by name.
        rows: how many each split has.
        names: of what they are computed from, for people who look.
    """

    def __init__(
        self,
        path: Path,
        splits: Mapping[str, Tensor],
        rows: Mapping[str, int],
        names: Mapping[str, str],
    ) -> None:
        self.path, self.names = path, names
        self.done = {name: torch.zeros(count, dtype=torch.bool) for name, count in rows.items()}
        self.splits = {**splits, **{f"{name}_done": own for name, own in self.done.items()}}
        self.written, self.pause = time.monotonic(), EVERY

    def has(self, split: str, rows: Sequence[int]) -> bool:
        """Whether all these rows are done."""
        return bool(self.done[split][list(rows)].all())

    def add(self, split: str, rows: Sequence[int]) -> None:
        """These rows are done now."""
        self.done[split][list(rows)] = True
        if time.monotonic() - self.written > self.pause:
            self.write()

    def write(self) -> None:
        """Write down what is done; where that cannot be, an interruption loses it."""
        began = time.monotonic()
        with suppress(OSError):
            _write(self.path, self.splits, self.names)
        self.written = time.monotonic()
        self.pause = max(EVERY, (self.written - began) / SHARE)


@contextmanager
def keeping(
    kind: Kind,
    module: StageModule,
    facts: Mapping[str, Any],
    splits: Mapping[str, Tensor],
    names: Mapping[str, str],
) -> Iterator[Begun]:
    """Within the context numbers of rows are computed, from where an interrupted run had come to.

    Args:
        kind: of the numbers.
        module: whose rows these are.
        facts: all that the numbers depend on.
        splits: the numbers by name, 0 where nothing is done.
        names: of what they are computed from, for people who look.
    """
    share = [module.trainer.global_rank, module.trainer.world_size]
    path = kept_path(kind, {**facts, "share": share})
    data = module.data
    rows = {"train": len(data.train_rows), "validation": len(data.validation_rows)}
    begun = Begun(path, splits, rows, {"unfinished": kind.words, **names})
    if read_kept(kind, path, begun.splits):
        found = sum(int(own.sum()) for own in begun.done.values())
        words = f"{found:,} of {sum(rows.values()):,} rows are done, by a run that was interrupted"
        rank_zero_info(f"{kind.words}: {words}")
    try:
        yield begun
    except BaseException:
        begun.write()
        raise
    with suppress(OSError):
        path.unlink(missing_ok=True)
