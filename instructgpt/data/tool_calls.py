"""Calls of tools in the words of a turn, where the assistant makes them beside its text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from instructgpt.data.checks import read_json
from instructgpt.data.errors import bad

CALLS = ("tool_calls", "function_call")
"""Keys of turns that hold calls: a list of them, or one as it was written before."""

WRITTEN = "used as text: <tool_call>, a line of JSON, </tool_call>"


def with_calls(where: str, key: str, turn: Mapping[str, Any], text: str) -> str:
    r"""The words of a turn with its calls behind them, as Hermes and Qwen write them.

    >>> turn = {"tool_calls": [{"function": {"name": "add", "arguments": '{"a": 1}'}}]}
    >>> with_calls("", "", turn, "I ask.")
    'I ask.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'

    Args:
        where: file and line.
        key: of the turn, for messages.
        turn: whose calls they are.
        text: its words.
    """
    parts = [text] if text.strip() else []
    for name in CALLS:
        given = turn.get(name) or []
        calls = read_json(given) if isinstance(given, str) else given
        for call in calls if isinstance(calls, list) else [calls]:
            said = call.get("function") or call if isinstance(call, dict) else {}
            if not isinstance(said.get("name"), str) or said.get("arguments") is None:
                rule = 'must be calls with a "name" and "arguments"'
                raise bad(where, f"{key}.{name}", rule, given)
            arguments = said["arguments"]
            arguments = read_json(arguments) if isinstance(arguments, str) else arguments
            line = json.dumps({"name": said["name"], "arguments": arguments}, ensure_ascii=False)
            parts.append(f"<tool_call>\n{line}\n</tool_call>")
    return "\n".join(parts) if parts else text
