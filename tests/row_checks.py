"""What every row that is read must be, and every line that says why one is not."""

from __future__ import annotations

import json

from instructgpt.data.formats import NOTHING, Document, parse_item
from instructgpt.data.opening import Item
from instructgpt.data.reading import Reading
from instructgpt.data.values import tidy
from instructgpt.terminal import printable
from instructgpt.types import UserError

WANTED = ("text", "prompt", "demonstration", "comparison", "candidates", "responses")
ROLES = {"system", "user", "assistant", "tool"}
PLACE = "dir/a.jsonl:7"


def check_line(error, place=PLACE):
    """One line whatever it quotes, which begins with the place and in which nothing acts."""
    text = printable(error)
    assert text.startswith(place), text
    assert len(text.splitlines()) == 1, text
    assert not set(text) & set("\x1b\x9b\x00\u2028")
    assert len(text) < 1200, text


def check_row(row, wanted):
    """What everything behind the readers relies on."""
    told = row.told
    assert all(told.columns.values())
    if told.left_out:  # for the reason that is told; nothing else of it is read
        return
    if isinstance(row, Document):
        assert row.text.strip()
        row.text.encode()
        return
    texts = [row.prompt.text, *row.responses, *(t["content"] for t in row.prompt.messages)]
    assert all(isinstance(text, str) and text.encode() is not None for text in texts)
    assert all(text.strip() for text in row.responses)
    assert {turn["role"] for turn in row.prompt.messages} <= ROLES
    assert any(turn["role"] == "user" for turn in row.prompt.messages)
    assert all(turn["role"] != "system" for turn in row.prompt.messages[1:])
    json.dumps(row.prompt.meta, ensure_ascii=False).encode()
    if wanted == "prompt":
        assert not row.responses
    elif wanted == "demonstration":
        assert len(row.responses) == 1
        assert not row.ranking
    elif wanted == "comparison" or len(row.responses) > 1:
        assert len(row.responses) == len(row.ranking) > 1
        assert all(type(rank) is int and 1 <= rank < 2**63 for rank in row.ranking)
    else:
        assert len(row.responses) == 1
        assert row.ranking in ([1], [2])


def read(value, wanted, reading=None):
    """Rows of a value, checked; none where it is refused."""
    item = tidy(Item(PLACE, "dir/a.jsonl", value), lambda key, reason: None)
    try:
        parsed = parse_item(item, wanted, reading or Reading())
    except UserError as error:
        check_line(error)
        if " failed: " in str(error):  # a format of ours has raised something else
            raise
        return []
    for row, name in parsed:
        assert name
        check_row(row, wanted)
        tops = {told.partition("[")[0].partition(".")[0] for told in row.told.columns}
        untold = {key for key in item.value if key not in row.told.columns and key not in tops}
        assert not untold or reading is not None, untold
    return parsed


def outcome(value, wanted, reading=None):
    """What a row gives, but for what is said of it, to be compared."""
    return [parsed.row._replace(told=NOTHING) for parsed in read(value, wanted, reading)]
