"""Rows as nobody would write them: any value in any column of the formats that there are."""

from __future__ import annotations

import datetime
import decimal
import json
import re
import uuid
from pathlib import Path

from hypothesis import strategies as st

DOC = Path(__file__).parents[1] / "docs" / "formats.md"
EXAMPLE = re.compile(r"^### `(\w+)`: [^\n]*\n+```json\n(.*?)\n```$", re.MULTILINE | re.DOTALL)

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
OWN = [
    {"prompt": TURNS[:1], "completion": TURNS[1:]},
    {"prompt": "hi", "responses": ["a", "b"], "ranking": [1, 2], "labeler": "ann"},
    {"prompt": "hi", "responses": ["a", "b"], "ratings": [1.5, 2], "finished": [True, False]},
    {"chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "no"}]},
    {"messages": TURNS},
    {"prompt": "hi", "response": "ho", "id": "1", "user": "me", "meta": {"a": 1}},
]
EXAMPLES = OWN + [json.loads(text) for _, text in EXAMPLE.findall(DOC.read_text("utf-8"))]
"""A row of each format that docs/formats.md shows, and more."""

COLUMNS = ["other", "score", "system", "label", "tools", "", "\x1b[31m", "\ud83d"]
"""Names that may be added to a row."""

TEXTS = ["", " ", "hi", "é🐖", "\x00\x1b[31m", "\ud83d", "\u2028", "a\nb", "[]", "[1, 2]", "null"]
TEXTS += [json.dumps(TURNS), str(TURNS), '{"a": 1, "a": 2}', '[{"role": "x", "role": "y"}]']
TEXTS += ["[" * 3000, "\n\nHuman: x", "x" * 3000, "<|endoftext|>", "{{ 1/0 }}", "1e999", "\ufeff"]
TEXTS += [
    "\n\nHuman: a\n\nAssistant: b",
    "User: a",
    "### Response:",
    "\ue000{}\ue001",
    "\ue0000\ue001",
]
NUMBERS = [0, 1, -1, 2**31, 2**63, 2**70, -(2**80), 10**400, 0.5, 1e308, float("inf")]
NUMBERS += [float("nan"), -0.0, True, False]
DEEP: list[object] = [1, {"a": 1}]
for _depth in (20, 99, 101):
    _nested: object = 1
    for _i in range(_depth):
        _nested = [_nested] if _i % 2 else {"a": _nested}
    DEEP.append(_nested)
FOREIGN = [datetime.date(1, 1, 1), datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)]
FOREIGN += [datetime.time(1), datetime.timedelta(-5), decimal.Decimal("1.10"), b"ok", b"\xff\xfe"]
FOREIGN += [decimal.Decimal("1e30"), uuid.UUID(int=5)]
"""What Arrow has and JSON has not."""

KEYS = ["role", "content", "from", "value", "type", "text", "\ud83d", "a", "tool_calls", "weight"]
KEYS += ["response", "answer", "rank", "rating", "annotations", "overall_score"]

texts = st.sampled_from(TEXTS) | st.text(max_size=12)
numbers = st.sampled_from(NUMBERS) | st.integers() | st.floats()
leaves = texts | numbers | st.none()
roles = st.sampled_from(["user", "assistant", "system", "tool", "Human", "gpt", "narrator"])
turns = st.lists(st.fixed_dictionaries({"role": roles, "content": texts}), max_size=4)


def nested(leaf):
    """Values of such leaves."""
    return st.recursive(
        leaf,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
        ),
        max_leaves=6,
    )


json_values = nested(leaves) | turns | st.sampled_from(DEEP)
"""What JSON can hold, also what no row should."""

any_values = json_values | nested(leaves | st.sampled_from(FOREIGN))
"""What any container can hold."""


@st.composite
def changed_rows(draw, values=json_values):
    """A row of a known format in which some things are changed."""
    row = dict(draw(st.sampled_from(EXAMPLES)))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
        key = draw(st.sampled_from([*row, *COLUMNS]))
        kind = draw(st.sampled_from(["value", "value", "delete", "rename", "inside"]))
        if kind == "value" or key not in row:
            row[key] = draw(values)
        elif kind == "inside":
            row[key] = draw(changed_inside(row[key], values))
        else:
            value = row.pop(key)
            if kind == "rename":
                row[draw(st.sampled_from([key.upper(), f" {key}", *COLUMNS]))] = value
    return row


@st.composite
def changed_inside(draw, value, values):
    """A value of which a part is another."""
    if not isinstance(value, dict | list) or not value or draw(st.booleans()):
        return draw(values)
    copy = dict(value) if isinstance(value, dict) else list(value)
    key = draw(st.sampled_from([*copy] if isinstance(copy, dict) else range(len(copy))))
    copy[key] = draw(changed_inside(copy[key], values))
    return copy
