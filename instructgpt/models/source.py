"""Where weights and tokenizers come from, and one-line errors when they do not come."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging

from instructgpt.types import UserError

ARTEFACT_FILE = "instructgpt.json"
"""What makes a Hugging Face folder an artefact of ours."""


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
