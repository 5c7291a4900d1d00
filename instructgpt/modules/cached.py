"""Files of numbers that are computed once and kept for later runs, in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from instructgpt.models.folder import write_bytes

MADE_FROM = "made_from"
"""The name of what a file says about itself."""


class Kind(NamedTuple):
    """What the files of a folder hold."""

    folder: str
    words: str  # for people


LOGPROBS = Kind("reference_logprobs", "reference log-probabilities")
FEATURES = Kind("features", "features of frozen trunks")
KINDS = (LOGPROBS, FEATURES)


def kept_folder(kind: Kind) -> Path:
    """Where they are kept, a file for each network and set of rows."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "instructgpt", kind.folder)


def kept_path(kind: Kind, facts: Mapping[str, Any]) -> Path:
    """Where numbers are kept that depend on these facts and on nothing else."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return kept_folder(kind) / f"{digest}.safetensors"


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
    about = "; ".join(f"{name} {place}" for name, place in names.items())  # one: they have no order
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, save(dict(splits), {MADE_FROM: about}))
    except OSError as error:
        rank_zero_warn(f"the {kind.words} are not kept for other runs: {error}")
    else:
        rank_zero_info(f"{kind.words}: kept in {path}")
