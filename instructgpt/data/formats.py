"""Rows of the formats people have, mapped to ours and checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.data.checks import name_of, object_of, text_of
from instructgpt.data.columns import UNUSED, Columns
from instructgpt.data.conversation import BEST, Conversation, Wanted, read_conversation
from instructgpt.data.files import SUFFIXES
from instructgpt.data.opening import Item
from instructgpt.types import Prompt


class Told(NamedTuple):
    """What the summary says of a row."""

    columns: dict[str, str]  # what each column is used as
    notes: Sequence[str] = ()  # what happened to it, to be counted
    left_out: str = ""  # why it is not used, if so


NOTHING = Told({})


class Row(NamedTuple):
    """A prompt with its responses: none for prompts, one for demonstrations, K for comparisons."""

    where: str
    prompt: Prompt
    responses: list[str]
    ranking: list[int]  # one for each response; empty unless a comparison
    user: str
    labeler: str
    source: str
    told: Told = NOTHING

    @property
    def key(self) -> str:
        """The prompt's name for splits: its words, whatever the white space."""
        turns = self.prompt.messages
        return "\n".join(f"{turn['role']}: {' '.join(turn['content'].split())}" for turn in turns)


class Document(NamedTuple):
    """A piece of plain text."""

    where: str
    text: str
    told: Told = NOTHING

    @property
    def key(self) -> str:
        """The text's name for splits."""
        return self.text


class Parsed(NamedTuple):
    """A checked row and the name of the format it had."""

    row: Any
    format: str


Parser = Callable[[Item], Parsed]

UNDESIRED = "marked as undesired, so nothing to imitate"


def parse_text(item: Item) -> Parsed:
    """Check ``{"text": str}``."""
    row = object_of(item)
    text = text_of(item.where, row, "text")
    columns = dict.fromkeys(row, UNUSED) | {"text": "used as text"}
    return Parsed(Document(item.where, text, Told(columns)), "text")


def parse_prompt(item: Item) -> Parsed:
    """Check ``{"prompt": str}``; responses of other formats are left out."""
    return _parse(item, "prompt")


def parse_demonstration(item: Item) -> Parsed:
    """Check ``{"prompt": str, "response": str}``; of comparisons the best response is taken."""
    return _parse(item, "demonstration")


def parse_comparison(item: Item) -> Parsed:
    """Check ``{"prompt": str, "responses": [str], "ranking": [int]}``; ``ratings`` will do."""
    return _parse(item, "comparison")


def parse_candidates(item: Item) -> Parsed:
    """Check a comparison, or ``{"prompt": str, "completion": str, "label": bool}`` as in KTO."""
    return _parse(item, "candidates")


def parse_to_score(item: Item) -> Parsed:
    """Check a comparison whose ranking may be missing: a reward model is going to score it."""
    return _parse(item, "responses")


def _parse(item: Item, wanted: Wanted) -> Parsed:
    columns = Columns(item.where, object_of(item))
    found = read_conversation(columns, wanted)
    responses, ranking = found.responses, found.ranking
    if wanted == "prompt":
        responses, ranking = [], []
    elif wanted == "demonstration" and len(responses) > 1:
        columns.notes.append(BEST)
        responses, ranking = [responses[ranking.index(min(ranking))]], []
    asked = [found.text, *(turn["content"] for turn in found.turns)]
    meta = columns.finish(found.format, asked, found.responses, found.judged)
    kept = found.desired or wanted == "candidates"
    told = Told(columns.uses, columns.notes, "" if kept else UNDESIRED)
    row = _row(item, columns.row, found, meta)
    return Parsed(row._replace(responses=responses, ranking=ranking, told=told), found.format)


def _row(item: Item, row: dict[str, Any], found: Conversation, meta: dict[str, Any]) -> Row:
    stem = Path(item.origin).name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        stem = stem.removesuffix(suffix)
    user, labeler, source = (name_of(row.get(key)) for key in ("user", "labeler", "source"))
    name = name_of(row.get("id")) or Path(item.where).name
    prompt = Prompt(found.text, found.turns, name, meta)
    return Row(item.where, prompt, [], [], user, labeler, source or stem)
