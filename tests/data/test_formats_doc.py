"""The table of formats is what the code makes of their examples, and names all of them."""

import json
import re
from pathlib import Path

from instructgpt.data.conversation import NATIVE
from instructgpt.data.formats import parse_item
from instructgpt.data.opening import Item
from instructgpt.data.reading import Reading
from instructgpt.data.recognise import known_formats
from instructgpt.types import UserError

DOC = Path(__file__).parents[2] / "docs" / "formats.md"
EXAMPLE = re.compile(r"^### `(\w+)`: ([^\n]*)\n+```json\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
STAGES = {
    "text": "pretraining",
    "demonstration": "SFT",
    "comparison": "reward, preference",
    "candidates": "preference (KTO)",
    "prompt": "PPO",
}
MOST = ("comparison", "candidates", "demonstration", "prompt", "text")
"""Of the rows that an example gives, that which uses most columns comes first."""


def read(example, wanted, reading):
    try:
        return parse_item(Item("doc:1", "doc", json.loads(example)), wanted, reading)
    except UserError:
        return []


def line(name, example):
    """A row of the table."""
    found = {wanted: read(example, wanted, Reading()) for wanted in STAGES}
    parsed = {wanted: rows[0] for wanted, rows in found.items() if rows}
    if "comparison" in parsed:
        del parsed["candidates"]
    most = next(parsed[wanted] for wanted in MOST if wanted in parsed)
    used = [f"`{key}`" for key, use in most.row.told.columns.items() if use.startswith("used")]
    stages = ", ".join(STAGES[wanted] for wanted in parsed)
    return f"| `{name}` | {most.format} | {', '.join(used)} | {stages} |"


def table(text):
    """The whole of it."""
    rows = [line(name, example) for name, _, example in EXAMPLE.findall(text)]
    head = "| `--data.format` | Recognised as (by) | Columns used | Stages |"
    return "\n".join([head, "|---|---|---|---|", *rows])


def test_the_table_is_what_the_examples_give():
    text = DOC.read_text()
    assert table(text) in text


def test_every_format_has_an_example_that_is_recognised_as_it_and_can_be_asked_for():
    examples = {name: example for name, _, example in EXAMPLE.findall(DOC.read_text())}
    titles = {name: form.title for name, form in known_formats().items()}
    titles |= {name: title for name, (title, *_) in NATIVE.items()}
    assert sorted(examples) == sorted(titles)
    for name, example in examples.items():
        wanted = "text" if name == "text" else "prompt"
        assert read(example, wanted, Reading(name)), name
        (parsed, *_) = read(example, wanted, Reading())
        assert parsed.format.startswith(titles[name]), name


if __name__ == "__main__":  # writes the table anew
    before, _, rest = DOC.read_text().partition("| `--data.format` |")
    _, _, after = rest.partition("\n\n")
    DOC.write_text(f"{before}{table(DOC.read_text())}\n\n{after}")
