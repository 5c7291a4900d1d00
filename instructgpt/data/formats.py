"""Rows of the formats people have, mapped to ours and checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.data.errors import bad, shorten
from instructgpt.data.files import SUFFIXES, Item
from instructgpt.types import Prompt, UserError

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


class Row(NamedTuple):
    """A prompt with its responses: none for prompts, one for demonstrations, K for comparisons."""

    where: str
    prompt: Prompt
    responses: list[str]
    ranking: list[int]  # one for each response; empty unless a comparison
    user: str
    labeler: str
    source: str

    @property
    def key(self) -> str:
        """The prompt's name for splits: its words, whatever the white space."""
        turns = self.prompt.messages
        return "\n".join(f"{turn['role']}: {' '.join(turn['content'].split())}" for turn in turns)


class Document(NamedTuple):
    """A piece of plain text."""

    where: str
    text: str

    @property
    def key(self) -> str:
        """The text's name for splits."""
        return self.text


class Parsed(NamedTuple):
    """A checked row and the name of the format it had."""

    row: Any
    format: str


Parser = Callable[[Item], Parsed]


def parse_text(item: Item) -> Parsed:
    """Check ``{"text": str}``."""
    row = _object(item)
    return Parsed(Document(item.where, _text(item.where, row, "text")), "text")


def parse_prompt(item: Item) -> Parsed:
    """Check ``{"prompt": str}``; responses of other formats are left out."""
    if isinstance(item.value, dict) and item.value.get("prompt") is None:
        item = item._replace(value=_rest(item.value, "output"))  # Alpaca's may be empty
    row, name = _canonical(item)
    return Parsed(_row(item, row, [], []), name or "prompt")


def parse_demonstration(item: Item) -> Parsed:
    """Check ``{"prompt": str, "response": str}``."""
    row, name = _canonical(item)
    response = _text(item.where, row, "response")
    return Parsed(_row(item, row, [response], []), name or "demonstration")


def parse_comparison(item: Item, ranked: bool = True) -> Parsed:
    """Check ``{"prompt": str, "responses": [str], "ranking": [int]}``; ``ratings`` will do."""
    row, name = _canonical(item)
    where = item.where
    responses = row.get("responses")
    if responses is None:
        raise _missing(where, row, "responses")
    if not isinstance(responses, list):
        raise bad(where, "responses", "must be a list of strings", responses)
    if len(responses) < 2:
        raise bad(where, "responses", "must hold at least 2 responses", responses)
    for i, response in enumerate(responses):
        _check_text(where, f"responses[{i}]", response)
    if not ranked and row.get("ranking") is None and row.get("ratings") is None:
        ranking = [1] * len(responses)
    else:
        ranking = _ranking(where, row, len(responses))
    return Parsed(_row(item, row, responses, ranking), name or "comparison")


def parse_to_score(item: Item) -> Parsed:
    """Check a comparison whose ranking may be missing: a reward model is going to score it."""
    return parse_comparison(item, ranked=False)


# -- checks


def _object(item: Item) -> dict[str, Any]:
    if isinstance(item.value, UserError):
        raise item.value
    if not isinstance(item.value, dict):
        raise UserError(f"{item.where}: a row must be an object, got {shorten(item.value)}")
    return item.value


def _missing(where: str, row: dict[str, Any], key: str) -> UserError:
    return UserError(f'{where}: "{key}" is missing, got the keys {shorten(sorted(map(str, row)))}')


def _check_text(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise bad(where, key, "must be a string", value)
    if not value.strip():
        raise bad(where, key, "must not be empty", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        got = value[max(0, error.start - 10) : error.start + 10]
        raise bad(where, key, "must be valid Unicode (half a surrogate pair)", got) from None
    return value


def _text(where: str, row: dict[str, Any], key: str) -> str:
    if row.get(key) is None:
        raise _missing(where, row, key)
    return _check_text(where, key, row[key])


def _messages(where: str, key: str, value: Any) -> list[dict[str, str]]:
    """Check chat turns; turns of the history may be empty."""
    if not isinstance(value, list) or not value:
        raise bad(where, key, "must be a list of chat turns", value)
    turns = []
    for i, turn in enumerate(value):
        fields = turn if isinstance(turn, dict) else {}
        role, content = fields.get("role"), fields.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            rule = 'must have a "role" and a "content" that are strings'
            raise bad(where, f"{key}[{i}]", rule, turn)
        if content.strip():
            _check_text(where, f"{key}[{i}]", content)
        turns.append({"role": role, "content": content})
    return turns


def _ranking(where: str, row: dict[str, Any], count: int) -> list[int]:
    ranking = row.get("ranking")
    if ranking is None:
        return _from_ratings(where, row, count)
    if not isinstance(ranking, list) or len(ranking) != count:
        raise bad(where, "ranking", f"must be a list of {count} ranks, one a response", ranking)
    for i, rank in enumerate(ranking):
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise bad(where, f"ranking[{i}]", "must be an integer >= 1 (1 = best)", rank)
        if rank >= 2**63:  # a batch of rankings is a tensor
            raise bad(where, f"ranking[{i}]", "must be less than 2^63", rank)
    return ranking


def _from_ratings(where: str, row: dict[str, Any], count: int) -> list[int]:
    """Rank by rating, the highest first; equal ratings tie."""
    ratings = row.get("ratings")
    if ratings is None:
        raise _missing(where, row, "ranking")
    if not isinstance(ratings, list) or len(ratings) != count:
        raise bad(where, "ratings", f"must be a list of {count} numbers, one a response", ratings)
    for i, rating in enumerate(ratings):
        number = isinstance(rating, int | float) and not isinstance(rating, bool)
        # An integer of any size is finite; math.isfinite would make a float of it.
        if not number or (isinstance(rating, float) and not math.isfinite(rating)):
            raise bad(where, f"ratings[{i}]", "must be a finite number", rating)
    return [1 + sum(other > rating for other in ratings) for rating in ratings]


def _row(item: Item, row: dict[str, Any], responses: list[str], ranking: list[int]) -> Row:
    prompt = _prompt(item, row)
    stem = Path(item.origin).name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        stem = stem.removesuffix(suffix)
    user, labeler, source = (_name(row.get(key)) for key in ("user", "labeler", "source"))
    return Row(item.where, prompt, responses, ranking, user, labeler, source or stem)


def _name(value: Any) -> str:
    return "" if value is None else str(value)


def _prompt(item: Item, row: dict[str, Any]) -> Prompt:
    where, text = item.where, row.get("prompt")
    if row.get("messages") is not None:
        messages = _messages(where, "messages", row["messages"])
        if messages[-1]["role"] == "assistant":
            rule = "must end before the response, with a turn that is not the assistant's"
            raise bad(where, "messages", rule, messages[-1])
        text = transcript(messages) if text is None else text
        _check_text(where, "prompt", text)
    else:
        text = _text(where, row, "prompt")
        messages = [{"role": "user", "content": text}]
    used = ("id", "prompt", "messages", "response", "responses", "ranking", "ratings")
    meta = {key: value for key, value in row.items() if key not in used}
    return Prompt(text, messages, _name(row.get("id")) or Path(where).name, meta)


# -- formats


def transcript(messages: list[dict[str, str]]) -> str:
    """The text of chat turns: one user turn as it is, more as an HH transcript."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    names = {"user": f"{HUMAN} ", "assistant": f"{ASSISTANT} "}
    turns = [names.get(turn["role"], "\n\n") + turn["content"] for turn in messages]
    return "".join(turns) + ASSISTANT


def _canonical(item: Item) -> tuple[dict[str, Any], str]:
    """Our keys, and the name of the format they came from ("" when it was ours)."""
    row = _object(item)
    has = {key for key, value in row.items() if value is not None}
    where = item.where
    if {"chosen", "rejected"} <= has and "responses" not in has:
        if "prompt" not in has and isinstance(row["chosen"], str):
            return _hh(where, row), "HH transcripts (chosen, rejected)"
        return _trl_pair(where, row), "TRL preference (chosen, rejected)"
    if {"prompt", "completion"} <= has and not has & {"response", "responses"}:
        return _trl_completion(where, row), "TRL completion (prompt, completion)"
    if "instruction" in has and "prompt" not in has:
        return _alpaca(where, row), "Alpaca (instruction, input, output)"
    if "messages" in has and not has & {"response", "responses"}:
        answered = _messages(where, "messages", row["messages"])[-1]["role"] == "assistant"
        if answered or "prompt" not in has:  # UltraChat repeats the first turn as "prompt"
            return _chat(where, _rest(row, "prompt") if answered else row), "messages"
    return row, ""


def _rest(row: dict[str, Any], *used: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in used}


def _alpaca(where: str, row: dict[str, Any]) -> dict[str, Any]:
    prompt = _text(where, row, "instruction")
    extra = row.get("input")
    if extra is not None and not isinstance(extra, str):
        raise bad(where, "input", "must be a string", extra)
    if extra:
        prompt = f"{prompt}\n\n{extra}"
    if "output" in row:
        row = {**row, "response": _text(where, row, "output")}
    return _rest(row, "instruction", "input", "output") | {"prompt": prompt}


def _chat(where: str, row: dict[str, Any]) -> dict[str, Any]:
    """The last turn is the response when it is the assistant's."""
    messages = _messages(where, "messages", row["messages"])
    if messages[-1]["role"] != "assistant":
        return {**row, "messages": messages}
    context, response = _split_turns(where, "messages", messages)
    return {**row, "messages": context, "response": response}


def _split_turns(
    where: str, key: str, messages: list[dict[str, str]]
) -> tuple[list[dict[str, str]], str]:
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        rule = "must be chat turns that end with the assistant's response to something"
        raise bad(where, key, rule, messages)
    return messages[:-1], _check_text(where, key, messages[-1]["content"])


def _hh(where: str, row: dict[str, Any]) -> dict[str, Any]:
    """Two transcripts that differ in the last assistant turn."""
    prompts, responses = [], []
    for key in ("chosen", "rejected"):
        text = _text(where, row, key)
        prompt, found, response = text.rpartition(ASSISTANT)
        if not found or not text.startswith(HUMAN) or HUMAN in response:
            rule = r'must be a transcript from "\n\nHuman:" to a last "\n\nAssistant:" turn'
            raise bad(where, key, rule, text)
        prompts.append(prompt)
        responses.append(_check_text(where, key, response).strip())
    if prompts[0] != prompts[1]:
        rule = "must agree with chosen up to the last assistant turn"
        raise bad(where, "rejected", rule, prompts[1])
    turns = []
    for part in prompts[0].split(HUMAN)[1:]:
        said, *answers = part.split(ASSISTANT)
        turns.append({"role": "user", "content": said.strip()})
        turns += [{"role": "assistant", "content": answer.strip()} for answer in answers]
    if (
        turns[-1]["role"] == "assistant"
    ):  # two assistant turns at the end: keep the first in the prompt
        turns.append({"role": "user", "content": ""})
    return _rest(row, "chosen", "rejected") | {
        "prompt": prompts[0] + ASSISTANT,
        "messages": turns,
        "responses": responses,
        "ranking": [1, 2],
    }


def _trl_completion(where: str, row: dict[str, Any]) -> dict[str, Any]:
    """``completion`` as a string, or as chat turns that end with the response."""
    head, turns = _trl_prompt(where, row)
    response = row["completion"]
    if isinstance(response, list):
        earlier, response = _last_turn(where, "completion", response)
        head = {"prompt": None, "messages": _joined(turns, earlier)}
    response = _check_text(where, "completion", response)
    return _rest(row, "completion") | head | {"response": response}


def _trl_pair(where: str, row: dict[str, Any]) -> dict[str, Any]:
    """``chosen`` and ``rejected`` as strings, or as chat turns with or without the prompt's."""
    head, turns = _trl_prompt(where, row)
    responses, contexts = [], []
    for key in ("chosen", "rejected"):
        value = row[key]
        if isinstance(value, list):
            earlier, value = _last_turn(where, key, value)
            contexts.append(_joined(turns, earlier))
        responses.append(_check_text(where, key, value))
    if contexts:
        if contexts[0] != contexts[-1] or len(contexts) != 2:
            rule = "must agree with chosen up to the last turn"
            raise bad(where, "rejected", rule, row["rejected"])
        head = {"prompt": None, "messages": contexts[0] or None}
    return _rest(row, "chosen", "rejected") | head | {"responses": responses, "ranking": [1, 2]}


def _trl_prompt(where: str, row: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The keys of a prompt that is a string or a list of chat turns, and its turns."""
    prompt, messages = row.get("prompt"), row.get("messages")
    if isinstance(prompt, list):
        turns = _messages(where, "prompt", prompt)
        return {"prompt": None, "messages": turns}, turns
    head = {"prompt": prompt, "messages": messages}
    if prompt is not None:
        return head, [{"role": "user", "content": _text(where, row, "prompt")}]
    return head, [] if messages is None else _messages(where, "messages", messages)


def _last_turn(where: str, key: str, value: list[Any]) -> tuple[list[dict[str, str]], str]:
    """The turns before the response, and the response: a last turn of the assistant."""
    turns = _messages(where, key, value)
    if turns[-1]["role"] != "assistant":
        raise bad(where, key, "must end with a turn of the assistant", turns[-1])
    return turns[:-1], turns[-1]["content"]


def _joined(prompt: list[dict[str, str]], turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """The turns of a prompt and of what follows, where the latter may repeat the former."""
    if not turns or turns[0]["role"] == "assistant":
        return prompt + turns
    said, again = [
        [(turn["role"], " ".join(turn["content"].split())) for turn in part]
        for part in (prompt, turns)
    ]
    if any(again[i : i + len(said)] == said for i in range(len(again))):
        return turns
    shared = next(n for n in range(len(said), -1, -1) if said[len(said) - n :] == again[:n])
    return prompt[: len(prompt) - shared] + turns
