"""Where weights and tokenizers come from, and one-line errors when they do not come."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, cached_file, logging

from instructgpt.types import UserError

ARTEFACT_FILE = "instructgpt.json"
"""What makes a Hugging Face folder an artefact of ours."""

FORMAT = 1


def located(source: str, key: str) -> None:
    """Refuse what is neither a folder nor can be the name of a hub repository.

    Args:
        source: folder or hub id.
        key: the argument it came from, for the message.
    """
    path = Path(source)
    if path.is_dir():
        return
    if path.exists():
        raise UserError(
            f"{key}: must be a folder or a hub id, '{source}' is a file "
            "(stages hand over export folders, not checkpoints)"
        )
    parts = source.split("/")
    local = len(parts) == 2 and Path(parts[0]).is_dir()  # and no owner of a repository
    if local or len(parts) > 2 or "" in parts or parts[0] in {".", "..", "~"}:
        raise UserError(f"{key}: must be a folder or a hub id, no such folder: '{source}'")


def read_facts(file: Path) -> dict[str, Any]:
    """What the file of an artefact says.

    Args:
        file: ``instructgpt.json``.

    Raises:
        UserError: it is not of our format, or says something twice.
    """
    try:
        facts = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: must be JSON, {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        given = facts.get("format") if isinstance(facts, dict) else type(facts).__name__
        raise UserError(f"{file}: key 'format' must be {FORMAT}, got {given!r:.60}")
    return facts


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, in which no name may stand twice: readers differ in which of the two they take."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"in which {twice!r:.60} stands once, got it twice")
    return made


def check_shards(source: str | Path) -> None:
    """Refuse a list of weight files that names others than safetensors beside it.

    transformers reads whatever stands there, by ``torch.load`` what has another ending.

    Args:
        source: folder or hub id.

    Raises:
        UserError: it names something else, or cannot be read.
    """
    try:
        index = cached_file(source, SAFE_WEIGHTS_INDEX_NAME)
    except OSError:  # there is none, or nothing at all, which others say
        return
    rule = "init_from: the list of weight files must name safetensors files beside it,"
    try:
        shards = json.loads(Path(str(index)).read_text(encoding="utf-8"))["weight_map"].values()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{rule} '{index}' does not") from error
    for shard in shards:
        plain = isinstance(shard, str) and Path(shard).name == shard
        if not plain or not shard.endswith(".safetensors"):
            raise UserError(f"{rule} '{index}' names {shard!r:.60}")


def is_planning() -> bool:
    """Whether networks are wanted for their sizes alone: tensors are made on the meta device."""
    return torch.get_default_device().type == "meta"


@contextmanager
def quietly() -> Iterator[None]:
    """Silence bars, tables and the libraries' warnings about each other."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the libraries' errors into one line that starts with ``what``; quietly."""
    try:
        with quietly():
            yield
    except (torch.OutOfMemoryError, UserError):
        raise
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        RuntimeError,
        ImportError,
        AttributeError,
        IndexError,
        SafetensorError,
        StrictDataclassError,
    ) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(f"{what}: {' '.join(lines[:2])[:300]}") from error
