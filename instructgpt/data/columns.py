"""The columns of a row: what each is used as, and which must not be left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from instructgpt.data.checks import check_text, missing, read_json
from instructgpt.data.errors import RefusedColumnError, bad
from instructgpt.data.turns import Turns, other_keys, read_turns

TURNS = ("messages", "conversations", "conversation")
"""Columns of chat turns."""

HEADS = ("prompt", "instruction", *TURNS)
"""Columns that hold a prompt."""

ANSWERS = ("response", "completion", "output")
"""Columns that hold the one response of a row."""

TAILS = (*ANSWERS, "responses", "ranking", "ratings", "scores", "chosen", "rejected")
"""Columns that hold responses, and what they are worth."""

LABELS = ("label", "kto_tag")
"""Columns that say whether the one response of a row is desired."""

ASKING = (
    *HEADS,
    *("system", "system_prompt", "system_message", "history", "chat_template_kwargs"),
    *("context", "input", "question", "query", "passage", "passages", "document", "documents"),
    *("article", "background", "tools", "functions", "tool_calls", "function_call"),
    *("image", "images", "audio", "audios", "video", "videos"),
)
"""Columns that change what is asked, however they are spelt; a set is refused where its format does
not use them."""

_ASKING = frozenset(ASKING)

_LONG = 30
"""Texts of so many characters are no empty list, whatever the white space around it."""

JUDGING = (
    *LABELS,
    *("labels", "preference", "preferred", "is_preferred", "winner", "better", "desirable"),
    *("undesirable", "accepted", "weight", "sample_weight", "is_safe", "is_correct"),
)
"""Columns that change whether a response is to be learned; they are used or refused, too."""

SCORED = "score_"
"""How columns begin that judge the one response of a row, and are used or refused there."""

NAMES = ("id", "user", "labeler", "source")
"""Columns that name something; but for the id they are metadata as well."""

METADATA, UNUSED, EMPTY = "kept as metadata", "not used", "empty"
REPEATS = "other columns hold the same"


@dataclass(eq=False)
class Columns(Mapping[str, Any]):
    """A row whose columns are taken one by one.

    Args:
        where: file and line.
        row: as read.
        uses: column -> what it has been used as.
        notes: what the summary shall count.
        path: of a row that lies in a column of another: ``answers[].``.
    """

    where: str
    row: dict[str, Any]
    uses: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    path: str = ""

    def __contains__(self, key: object) -> bool:
        """Whether the row has the column, with a value."""
        return self.row.get(key) is not None  # type: ignore[call-overload,no-any-return]

    def __getitem__(self, key: str) -> Any:
        """The value of a column that must be there, for a format that says no more about it."""
        value = self.row[key]
        self.uses[f"{self.path}{key}"] = "used by the format"
        return value

    def __iter__(self) -> Iterator[str]:
        """The names of all columns."""
        return iter(self.row)

    def __len__(self) -> int:
        """How many columns there are."""
        return len(self.row)

    def first(self, *keys: str) -> str:
        """The first of some columns that is there and not empty, or ""."""
        row = self.row
        for key in keys:  # a loop: this is what most of the time goes to
            if key in row and not is_empty(row[key]):
                return key
        return ""

    def take(self, key: str, use: str) -> Any:
        """The value of a column, which is used for something."""
        self.uses[f"{self.path}{key}"] = f"used as {use}"
        return self.row.get(key)

    def text(self, key: str, use: str) -> str:
        """The text of a column that must be there."""
        self.uses[f"{self.path}{key}"] = f"used as {use}"
        value = self.row.get(key)
        if value is None:
            raise missing(self.where, self.row, f"{self.path}{key}")
        return check_text(self.where, f"{self.path}{key}", value)

    def objects(self, key: str, use: str) -> list[Columns]:
        """The objects of a column that is a list of them, as rows of their own."""
        value = read_json(self.take(key, use))
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise bad(self.where, f"{self.path}{key}", "must be a list of objects", value)
        return [self._inside(one, f"{self.path}{key}[].") for one in value]

    def object(self, key: str, use: str) -> Columns:
        """The object in a column, as a row of its own."""
        value = read_json(self.take(key, use))
        if not isinstance(value, dict):
            raise bad(self.where, f"{self.path}{key}", "must be an object", value)
        return self._inside(value, f"{self.path}{key}.")

    def _inside(self, value: dict[str, Any], path: str) -> Columns:
        for name in value:
            self.uses.setdefault(f"{path}{name}", UNUSED)
        return Columns(self.where, value, self.uses, self.notes, path)

    def turns(self, key: str, use: str) -> Turns:
        """The chat turns of a column, a list or a single one."""
        value = self.take(key, use)
        value = [value] if isinstance(value, dict) else value
        turns = read_turns(self.where, key, value)
        self.uses |= {f"{key}[].{name}": told for name, told in other_keys(value).items()}
        return turns

    def finish(
        self, format_name: str, asked: list[str], responses: list[str], judged: tuple[str, ...]
    ) -> dict[str, Any]:
        """Say what the columns that nobody took are, and return the metadata.

        Args:
            format_name: for messages.
            asked: texts of the prompt.
            responses: texts of the responses; what repeats a response or a part of the prompt adds
                nothing.
            judged: columns that change what is learned.
        """
        asking, scored = _ASKING, SCORED in judged
        for key, value in self.row.items():
            if key in self.uses:
                continue
            name = key.strip().lower()
            if key in NAMES:
                self.uses[key] = EMPTY if value is None else "used as names"
            elif is_empty(value):
                self.uses[key] = EMPTY
            elif name in asking or name in judged or (scored and name.startswith(SCORED)):
                if not _repeats(value, asked, responses):
                    matter = "what is asked" if name in asking else "what is learned"
                    rule = f"changes {matter}, which rows of this format ({format_name}) cannot use"
                    rule = f"{rule}: remove or rename the column"
                    raise RefusedColumnError(f"{bad(self.where, key, rule, value)}")
                own = key in (*HEADS, *TAILS)
                self.uses[key] = f"{UNUSED} ({REPEATS})" if own else METADATA
            else:
                self.uses[key] = UNUSED if key in TAILS else METADATA
        hidden = (*ASKING, *TAILS)
        kept = {key for key, use in self.uses.items() if use == METADATA or key in NAMES[1:]}
        kept |= {key for key, use in self.uses.items() if use == EMPTY and key not in hidden}
        return {key: value for key, value in self.row.items() if key in kept} if kept else {}


def is_empty(value: Any) -> bool:
    """Whether a value says nothing.

    >>> [is_empty(value) for value in (None, " ", "[]", [], False, 0)]
    [True, True, True, True, False, False]
    """
    if isinstance(value, str):
        short = len(value) < _LONG and value.strip() in ("", "[]", "{}", "null")
        return short or value.isspace()
    return value is None or (isinstance(value, list | dict | tuple) and not value)


def _repeats(value: Any, asked: list[str], responses: list[str]) -> bool:
    """Whether all that a value says are words of the prompt, or a response."""
    if isinstance(value, list):
        return all(_repeats(one, asked, responses) for one in value)
    if isinstance(value, dict):
        value = value.get("content", value.get("value"))
    if not isinstance(value, str):
        return False
    words = " ".join(value.split())
    return any(_holds(" ".join(text.split()), words) for text in asked) or any(
        words == " ".join(text.split()) for text in responses
    )


def _holds(text: str, words: str) -> bool:
    """Whether words stand in a text, not as a part of a longer word."""
    start = text.find(words)
    while start >= 0:
        end = start + len(words)
        around = text[max(0, start - 1) : start] + text[end : end + 1]
        # Not all scripts have spaces between words.
        if not any(one.isascii() and one.isalnum() for one in around):
            return True
        start = text.find(words, start + 1)
    return False
