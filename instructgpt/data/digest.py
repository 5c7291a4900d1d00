"""Telling whether rows are the same, whatever file they came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from instructgpt.types import Prompt


def rows_digest(rows: Iterable[Any]) -> str:
    """Name rows by what a stage sees of them: tokens, rankings and prompts.

    Names of files, rows and labelers play no part: files may move.

    Args:
        rows: tuples of tensors, numbers and tuples.
    """
    digest = hashlib.sha256()
    for row in rows:
        _feed(digest, row)
    return digest.hexdigest()[:16]


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"{tuple(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    elif isinstance(value, Prompt):
        seen = [value.text, value.messages, value.meta]
        text = json.dumps(seen, sort_keys=True, default=str)
        digest.update(text.encode())
    elif isinstance(value, tuple):
        digest.update(b"(%d" % len(value))
        for part in value:
            _feed(digest, part)
    elif isinstance(value, int | float):
        digest.update(f"{value!r},".encode())
