"""What a stage was made from, for people who meet its model."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instructgpt.data.sources import Names, weighted

HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.-]+)?")


def used(use: str, names: Names, counts: Sequence[int | None]) -> list[dict[str, Any]]:
    """Some sets in types of JSON: use, name (without folders of this machine), hub, rows.

    Args:
        use: what they are for.
        names: as given by the user.
        counts: rows of each set that are used; None where they are streamed.
    """
    found = []
    for (one, _), rows in zip(weighted(names, use), counts, strict=True):
        hub = all(HUB.fullmatch(name) and not _is_local(name) for name in one)
        shown = ", ".join(name if hub else Path(name).name for name in one)
        found.append({"use": use, "name": shown, "hub": hub and len(one) == 1, "rows": rows})
    return found


def held_out(rows: int) -> dict[str, Any]:
    """Validation rows that are a share of the training data."""
    return {"use": "validation", "name": "held out of the above", "hub": False, "rows": rows}


def _is_local(name: str) -> bool:
    return Path(os.path.expanduser(name)).exists()
