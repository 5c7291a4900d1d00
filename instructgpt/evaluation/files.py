"""JSON files that the evaluation reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from instructgpt.data.opening import check_file, kind_of
from instructgpt.types import UserError


def read_json(path: str) -> dict[str, Any]:
    """An object in a JSON file."""
    if kind_of(path):  # what is not there is told below
        check_file(path)
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: must be JSON, got: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold a JSON object, got {str(value)[:60]}")
    return value
