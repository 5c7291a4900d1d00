"""Chat turns: who says what, whatever the words for it."""

from __future__ import annotations

import re
from typing import Any

from instructgpt.data.checks import check_text
from instructgpt.data.errors import bad
from instructgpt.data.tool_calls import CALLS, WRITTEN, with_calls
from instructgpt.models.transcript import transcript

Turn = dict[str, str]
Turns = list[Turn]

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"

ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "chatgpt": "assistant",
    "ai": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
}
"""What speakers are called, in lower case, and the role they have here."""

_SPEAKER, _CONTENT = ("role", "from"), ("content", "value")
_MORE = (  # they change what is said
    *("tools", "functions", "image", "images", "audio", "video", "videos"),
    *("prefix", "reasoning_content", "reasoning", "thinking"),
)
_TRAINED = ("weight", "train", "loss")  # false where a turn is not to be imitated


def read_turns(where: str, key: str, value: Any) -> Turns:
    """Check chat turns: known speakers, text, the system first; others' turns may be empty.

    Args:
        where: file and line.
        key: column, for messages.
        value: list of ``{"role", "content"}`` or ``{"from", "value"}``; a content may be a list of
            text parts, which are put on lines of their own.
    """
    if not isinstance(value, list) or not value:
        raise bad(where, key, "must be a list of chat turns", value)
    turns = [_turn(where, f"{key}[{i}]", turn) for i, turn in enumerate(value)]
    late = next((i for i, turn in enumerate(turns) if i and turn["role"] == "system"), None)
    if late is not None:
        raise bad(where, f"{key}[{late}]", "must not be the system's unless it is first", turns)
    for name in _TRAINED:
        if is_answered(turns) and value[-1].get(name) in (False, 0):
            rule = "must not forbid to imitate the last turn, which is the response"
            raise bad(where, f"{key}[{len(turns) - 1}].{name}", rule, value[-1][name])
    said = [turn for turn in turns if turn["role"] != "system" or turn["content"].strip()]
    if not said:
        raise bad(where, key, "must hold more than an empty turn of the system", value)
    return said


def _turn(where: str, key: str, turn: Any) -> Turn:
    fields = turn if isinstance(turn, dict) else {}
    speaker = next((fields[k] for k in _SPEAKER if fields.get(k) is not None), None)
    content = next((fields[k] for k in _CONTENT if fields.get(k) is not None), None)
    for name in _MORE:
        if fields.get(name):
            rule = "must not be there: no stage can use it"
            raise bad(where, f"{key}.{name}", rule, fields[name])
    calls = any(fields.get(name) for name in CALLS)
    content = "" if content is None and calls else content
    if not isinstance(speaker, str) or not isinstance(content, str | list):
        rule = 'must have a "role" and a "content" that are strings'
        raise bad(where, key, rule, turn)
    role = ROLES.get(speaker.strip().lower())
    if role is None:
        raise bad(where, key, f"must have a known role ({', '.join(ROLES)})", speaker)
    if isinstance(content, list):
        parts = [_part(where, f"{key}.content[{i}]", part) for i, part in enumerate(content)]
        content = "\n".join(parts)
    if calls and role != "assistant":
        raise bad(where, key, "must be the assistant's, for it has calls of tools", speaker)
    if calls:
        content = with_calls(where, key, fields, content)
    if content.strip():
        check_text(where, key, content)
    if role != "assistant" and is_transcript(content):
        rule = r'must be what one speaker says, not a transcript ("\n\nHuman:" …)'
        raise bad(where, key, rule, content)
    return {"role": role, "content": content}


def _part(where: str, key: str, part: Any) -> str:
    kind = part.get("type", "text") if isinstance(part, dict) else "text"
    if kind not in ("text", "input_text", "output_text"):
        raise bad(where, key, "must be a text: other parts cannot be used", kind)
    text = part.get("text") if isinstance(part, dict) else part
    if not isinstance(text, str):
        raise bad(where, key, 'must have a "text" that is a string', part)
    return text


def other_keys(value: list[Any]) -> dict[str, str]:
    """The keys of turns that are neither speaker nor words, and what they are used as."""
    known = (*_SPEAKER, *_CONTENT, *_MORE, *_TRAINED)
    keys = dict.fromkeys(str(key) for turn in value for key in turn if key not in known)
    filled = {key for turn in value for key in CALLS if turn.get(key)}
    unused = {key: "not used" for key in keys if key not in CALLS}
    return unused | dict.fromkeys(sorted(filled), WRITTEN)


def is_answered(turns: Turns) -> bool:
    """Whether the assistant has the last word."""
    return bool(turns) and turns[-1]["role"] == "assistant"


def check_asked(where: str, key: str, turns: Turns) -> None:
    """Refuse turns that ask nothing: without a user, or with an empty end.

    Args:
        where: file and line.
        key: column, for messages.
        turns: before the response.
    """
    if any(turn["role"] == "system" for turn in turns[1:]):
        raise bad(where, key, "must have one turn of the system, in front", turns)
    if not any(turn["role"] == "user" for turn in turns):
        raise bad(where, key, "must have a turn of the user", turns)
    if turns[-1]["role"] != "assistant" and not turns[-1]["content"].strip():
        raise bad(where, key, "must not end with an empty turn before the response", turns[-1])


def split_response(where: str, key: str, turns: Turns) -> tuple[Turns, str]:
    """The turns before the response, and the response: a last turn of the assistant."""
    if not is_answered(turns):
        raise bad(where, key, "must end with a turn of the assistant", turns[-1])
    return turns[:-1], check_text(where, key, turns[-1]["content"])


# -- transcripts


def written(turns: Turns) -> str:
    """The text of chat turns: one user turn as it is, more as a transcript."""
    if len(turns) == 1 and turns[0]["role"] == "user":
        return turns[0]["content"]
    return transcript(turns)


def is_transcript(text: str) -> bool:
    r"""Whether a text is turns of "\n\nHuman:" and "\n\nAssistant:", maybe after the system's.

    >>> is_transcript("\n\nHuman: hi\n\nAssistant:"), is_transcript("Human: a kind of ape.")
    (True, False)
    """
    start = text.lstrip()
    led = start.startswith("System:") and HUMAN in text
    spoken = start.startswith("Human:") or led
    ends = HUMAN in text and text.rstrip().endswith(ASSISTANT)
    return text.startswith(HUMAN) or (spoken and ASSISTANT in text) or ends


def transcript_turns(text: str) -> Turns:
    r"""The turns of a transcript; the last one may be empty.

    >>> [turn["content"] for turn in transcript_turns("\n\nHuman: hi\n\nAssistant:")]
    ['hi', '']
    """
    system, *parts = re.split(f"({HUMAN}|{ASSISTANT})", f"\n\n{text.lstrip()}")
    said = [
        {"role": "user" if speaker == HUMAN else "assistant", "content": content.strip()}
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    if system.strip():
        said.insert(
            0, {"role": "system", "content": system.strip().removeprefix("System:").strip()}
        )
    return said


# -- parts that are there twice


def join(prompt: Turns, turns: Turns) -> Turns:
    """The turns of a prompt and of what follows, where the latter may repeat the former.

    Args:
        prompt: what was asked.
        turns: what follows.
    """
    if not turns or turns[0]["role"] == "assistant":
        return prompt + turns
    said, again = _words(prompt), _words(turns)
    if any(again[i : i + len(said)] == said for i in range(len(again))):
        return turns
    shared = next(n for n in range(len(said), -1, -1) if said[len(said) - n :] == again[:n])
    return prompt[: len(prompt) - shared] + turns


def same(one: Turns, other: Turns) -> bool:
    """Whether the same is said, whatever the white space."""
    return _words(one) == _words(other)


def starts_with(turns: Turns, start: Turns) -> bool:
    """Whether turns begin with others, whatever the white space."""
    return bool(start) and _words(turns)[: len(start)] == _words(start)


def _words(turns: Turns) -> list[tuple[str, str]]:
    return [(turn["role"], " ".join(turn["content"].split())) for turn in turns]


def without_prompt(text: str, responses: list[str]) -> list[str] | None:
    """The responses without the prompt that all of them repeat; None where they do not.

    A prompt of one or two words may be how a response happens to begin.

    Args:
        text: of the prompt.
        responses: to it.
    """
    start = text.strip()
    if len(start.split()) < 3 or not responses:
        return None
    rests = []
    for response in responses:
        rest = response.lstrip().removeprefix(start)
        if rest == response.lstrip() or not rest.strip() or not rest[0].isspace():
            return None
        rests.append(rest.strip())
    return rests


def pairs_to_turns(where: str, key: str, value: Any) -> Turns:
    """Earlier turns, from ``[[user, assistant], …]`` or as chat turns."""
    if isinstance(value, list) and all(isinstance(turn, dict) for turn in value):
        return read_turns(where, key, value)
    if not isinstance(value, list):
        raise bad(where, key, "must be a list of [user, assistant] pairs", value)
    turns = []
    for i, pair in enumerate(value):
        fine = isinstance(pair, list | tuple) and len(pair) == 2
        if not fine or not all(isinstance(said, str) for said in pair):
            raise bad(where, f"{key}[{i}]", "must be a pair of strings, user and assistant", pair)
        for role, said in zip(("user", "assistant"), pair, strict=True):
            turns.append({"role": role, "content": check_text(where, f"{key}[{i}]", said)})
    return turns
