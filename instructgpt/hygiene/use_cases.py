"""What prompts are for: the paper's use cases and their shares (Table 1)."""

from __future__ import annotations

import re

from instructgpt.hygiene.clean_row import CleanRow

COLUMNS = ("use_case", "category", "task_type", "task")
"""Columns that say what a prompt is for; the first that a row has."""

PAPER = {
    "Generation": 0.456,
    "Open QA": 0.124,
    "Brainstorming": 0.112,
    "Chat": 0.084,
    "Rewrite": 0.066,
    "Summarization": 0.042,
    "Classification": 0.035,
    "Other": 0.035,
    "Closed QA": 0.026,
    "Extract": 0.019,
}
"""Shares of the prompts of the reward model's data (Table 1)."""

_ALSO = {
    "qa open": "Open QA",
    "general qa": "Open QA",
    "qa closed": "Closed QA",
    "creative writing": "Generation",
    "writing": "Generation",
    "information extraction": "Extract",
    "extraction": "Extract",
    "rewriting": "Rewrite",
    "summarisation": "Summarization",
    "brainstorm": "Brainstorming",
    "chatbot": "Chat",
    "conversation": "Chat",
}


def use_case_of(row: CleanRow) -> str:
    """What the row's own column says; "" where there is none."""
    for key in COLUMNS:
        value = row.meta.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def of_paper(name: str) -> str:
    """The paper's use case that a name stands for; "" for none.

    >>> of_paper("open_qa"), of_paper("creative_writing"), of_paper("poetry")
    ('Open QA', 'Generation', '')
    """
    words = " ".join(re.split(r"[^a-z]+", name.lower())).strip()
    known = {one.lower(): one for one in PAPER} | _ALSO
    return known.get(words, "")
