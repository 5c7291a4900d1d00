"""The prompt in a row, whichever columns hold it."""

from __future__ import annotations

from typing import NamedTuple

from instructgpt.data.columns import HEADS, TURNS, Columns
from instructgpt.data.errors import bad
from instructgpt.data.turns import (
    Turns,
    is_answered,
    is_transcript,
    pairs_to_turns,
    read_turns,
    same,
    transcript_turns,
)


class Asked(NamedTuple):
    """A prompt."""

    key: str  # the column, for messages
    text: str  # as written; "" where only the turns say it
    turns: Turns


def read_asked(columns: Columns, tail: str) -> Asked:
    """The prompt of a row, with its system turn and its history.

    Args:
        columns: of the row; they are told what they are used as.
        tail: the column of the responses, "" where there is none.
    """
    key, text, turns = _head(columns, tail)
    where = columns.where
    plain = not turns and bool(text)
    if plain:
        turns = [{"role": "user", "content": text}]
    if plain and is_transcript(text):
        turns, plain = transcript_turns(text), False
        if is_answered(turns) and not turns[-1]["content"]:
            turns = turns[:-1]
        if tail != "chosen" and is_answered(turns):
            raise bad(where, key, r'must end with an open "\n\nAssistant:"', text)
    if plain and (history := columns.first("history")):
        earlier = pairs_to_turns(where, history, columns.take(history, "earlier turns"))
        text, turns = "", earlier + turns
    if name := columns.first("system", "system_prompt", "system_message"):
        system = [{"role": "system", "content": columns.text(name, "system turn")}]
        if turns and turns[0]["role"] == "system" and not same(turns[:1], system):
            raise bad(where, name, f"must be the system turn of {key}", columns.row[name])
        if not turns or turns[0]["role"] != "system":
            text, turns = "", system + turns
    return Asked(key, text, turns)


def _head(columns: Columns, tail: str) -> Asked:
    """The column of the prompt, with its text or its turns."""
    where = columns.where
    prompt = columns.row["prompt"] if columns.first("prompt") else None
    key = columns.first(*TURNS)
    if not columns.first(*HEADS, "chosen"):  # what is empty is then told
        key = next((key for key in TURNS if key in columns), "")
    if key and not isinstance(prompt, list | dict) and not columns.first("instruction"):
        turns = read_turns(where, key, columns.row[key])
        twice = tail in ("chosen", "completion") or (tail and columns.first("prompt"))
        if not (is_answered(turns) and twice):  # they repeat a response
            if is_answered(turns) and tail:
                rule = "must end before the response, with a turn that is not the assistant's"
                raise bad(where, key, rule, turns[-1])
            turns = columns.turns(key, "conversation")
            own = prompt is not None and not is_answered(turns)
            return Asked(key, _written(columns, key, turns) if own else "", turns)
    if isinstance(prompt, list | dict):
        turns = columns.turns("prompt", "prompt")
        if is_answered(turns):
            rule = "must end before the response, with a turn that is not the assistant's"
            raise bad(where, "prompt", rule, turns[-1])
        return Asked("prompt", "", turns)
    if "instruction" in columns and not columns.first("prompt"):
        return Asked("instruction", _instruction(columns), [])
    if "prompt" not in columns and tail == "chosen":
        return Asked("chosen", "", [])
    return Asked("prompt", columns.text("prompt", "prompt"), [])


def _written(columns: Columns, key: str, turns: Turns) -> str:
    """The prompt as it is written beside its turns."""
    text = columns.text("prompt", "prompt")
    words = " ".join(text.split())
    if any(" ".join(turn["content"].split()) not in words for turn in turns):
        raise bad(columns.where, key, 'must be the turns of "prompt"', columns.row[key])
    return text


def _instruction(columns: Columns) -> str:
    """The instruction, a blank line, and what it is about: ``input`` or ``context``."""
    text = columns.text("instruction", "prompt")
    about = columns.first("input", "context")
    extra = columns.row.get("input")
    if extra is not None and not isinstance(extra, str):
        raise bad(columns.where, "input", "must be a string", extra)
    return f"{text}\n\n{columns.text(about, 'prompt')}" if about else text
