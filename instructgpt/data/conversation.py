"""The conversation in a row, whichever columns hold it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, NamedTuple

from instructgpt.data.asked import Asked, read_asked
from instructgpt.data.checks import check_text, missing
from instructgpt.data.columns import ANSWERS, JUDGING, LABELS, SCORED, TAILS, TURNS, UNUSED, Columns
from instructgpt.data.errors import bad
from instructgpt.data.rankings import list_ranking, pair_ranking, settle
from instructgpt.data.turns import (
    ASSISTANT,
    HUMAN,
    Turns,
    check_asked,
    is_answered,
    is_transcript,
    join,
    read_turns,
    same,
    split_response,
    starts_with,
    transcript_turns,
    without_prompt,
    written,
)

RENDERED = (
    *("<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "<|user|>", "[INST]"),
    *("### Instruction:", "### Response:", "<extra_id_1>"),
)
"""Marks of templates; a prompt with one has been put into a template already."""

Wanted = Literal["text", "prompt", "demonstration", "comparison", "candidates", "responses"]
"""What a row is read for; ``candidates`` are a comparison or one response that was judged alone,
``responses`` are a comparison that needs no ranking."""

NATIVE = {
    "text": ("text", "text"),
    "prompt": ("prompt", "prompt"),
    "demonstration": ("demonstration", "prompt", "response"),
    "comparison": ("comparison", "prompt", "responses", "ranking"),
    "messages": ("messages", "messages"),
    "sharegpt": ("ShareGPT", "conversations"),
    "alpaca": ("Alpaca", "instruction", "output"),
    "dolly": ("Dolly", "instruction", "context", "response"),
    "hh": ("HH transcripts", "chosen", "rejected"),
    "trl_prompt": ("TRL", "prompt"),
    "trl_completion": ("TRL completion", "prompt", "completion"),
    "trl_preference": ("TRL preference", "prompt", "chosen", "rejected"),
    "kto": ("KTO", "prompt", "completion", "label"),
    "verl": ("verl", "prompt", "reward_model"),
}
"""Formats that are read without being converted: name -> title, and columns that tell."""

REPEATED = "whose responses repeat the prompt: it is there once"
SPOKEN = 'warning: with a response that speaks as "Human:" or "Assistant:", taken as it is'
WRITTEN = "warning: whose prompt holds the marks of a template: that of the run goes around them"
IN_A_ROW = "where one speaker has two turns in a row, kept as they are"
SILENT = "with an empty turn, kept as it is"
BEST = "with several responses, of which the best is imitated"
TIED = "warning: with several responses, all tied, of which the first is imitated"


class Conversation(NamedTuple):
    """A prompt with its responses."""

    text: str
    turns: Turns
    responses: list[str]  # where a prompt is wanted: what other columns may repeat
    ranking: list[int]
    desired: bool
    judged: tuple[str, ...]  # columns that would change what is learned
    name: str  # of the format, as in NATIVE
    format: str  # as it is shown


def read_conversation(columns: Columns, wanted: Wanted) -> Conversation:
    """Find the prompt and what else is wanted.

    Args:
        columns: of a row; they are told what they are used as.
        wanted: what the row is read for.
    """
    tail = _tail(columns, wanted)
    chat = "" if tail else _chat(columns)
    _check_wanted(columns, wanted, tail or chat)
    asked = head = read_asked(columns, tail)
    responses: list[str] = []
    if chat:
        before, response = _split_chat(columns, chat, asked.turns)
        asked, responses = asked._replace(turns=before), [response]
    elif wanted == "prompt" and (tail not in ("chosen", "completion") or _is_known(columns, asked)):
        pass  # the responses are not looked at
    elif tail in ("chosen", "completion"):
        asked, responses = _answers(columns, tail, asked)
    elif tail:
        responses = _texts(columns, tail)
    check_asked(columns.where, asked.key, asked.turns)
    text = asked.text or written(asked.turns)
    if wanted == "prompt":
        columns.notes.clear()  # they are about responses
        answers = [key for key in columns.uses if key in TAILS]
        told = UNUSED if asked.turns == head.turns else "used as prompt"
        columns.uses.update(dict.fromkeys(answers, told))
        _note(columns, asked.turns)
        name = _name(columns, tail, asked)
        return Conversation(text, asked.turns, responses or _given(columns), [], True, (), *name)
    _note(columns, asked.turns)
    ranking = _ranking(columns, tail, wanted, len(responses))
    if tail == "responses" or isinstance(columns.row.get(tail), str):
        responses = _once(columns, text, responses)
    if len(responses) > 1:
        ranking = settle(responses, ranking, columns.notes)
    if len(responses) == 1 and HUMAN in responses[0] and is_transcript(text):
        rule = r'must be one turn, not go on with "\n\nHuman:"'
        raise bad(columns.where, tail or chat, rule, responses[0])
    if any(mark in f"\n\n{said}" for said in responses for mark in (HUMAN, ASSISTANT)):
        columns.notes.append(SPOKEN)
    desired = _is_desired(columns) if len(responses) == 1 else True
    if wanted == "candidates" and len(responses) == 1:
        ranking = [1 if desired else 2]
    name = _name(columns, tail, asked)
    judged: tuple[str, ...] = JUDGING
    if len(responses) == 1:
        judged = (*JUDGING, *ANSWERS, "margin", SCORED)
    elif tail == "responses":
        judged = ()  # their ranking says it all
    return Conversation(text, asked.turns, responses, ranking, desired, judged, *name)


def _tail(columns: Columns, wanted: Wanted) -> str:
    """The column of the responses; "" where the last turn of a chat may be one."""
    alpaca = "instruction" in columns and not columns.first("prompt")
    keys = ["response", "completion", *(["output"] if alpaca else [])]
    one = columns.first(*keys)
    if not one and not columns.first(*TURNS):  # what is empty is then told
        one = next((key for key in keys if key in columns), "")
    pair = "chosen" if "chosen" in columns and "rejected" in columns else ""
    many = "responses" if "responses" in columns else pair
    return one or many if wanted == "demonstration" else many or one


def _chat(columns: Columns) -> str:
    """The column of chat turns that end with the response."""
    key = columns.first(*TURNS)
    return key if key and is_answered(read_turns(columns.where, key, columns.row[key])) else ""


def _check_wanted(columns: Columns, wanted: Wanted, tail: str) -> None:
    """Refuse a row without what is wanted of it."""
    if wanted == "demonstration" and not tail:
        key = columns.first(*TURNS)
        more = f', for "{key}" does not end with a turn of the assistant' if key else ""
        raise missing(columns.where, columns.row, "response", more)
    if wanted in ("comparison", "candidates", "responses") and tail not in ("responses", "chosen"):
        if tail and (label := columns.first(*LABELS)):
            if wanted == "candidates":
                return
            rule = (
                "judges one response alone, as in KTO: no comparison; SFT imitates those that are "
                "true, and an algorithm of yours with reads_unpaired learns from both"
            )
            raise bad(columns.where, label, rule, columns.row[label])
        raise missing(columns.where, columns.row, "responses")


# -- the responses


def _split_chat(columns: Columns, key: str, turns: Turns) -> tuple[Turns, str]:
    if len(turns) < 2:
        rule = "must be chat turns that end with the assistant's response to something"
        raise bad(columns.where, key, rule, turns)
    return split_response(columns.where, key, turns)


def _texts(columns: Columns, tail: str) -> list[str]:
    """Responses that are texts."""
    where = columns.where
    if tail != "responses":
        return [columns.text(tail, "response")]
    responses = columns.take("responses", "responses")
    if not isinstance(responses, list):
        raise bad(where, "responses", "must be a list of strings", responses)
    if len(responses) < 2:
        raise bad(where, "responses", "must hold at least 2 responses", responses)
    return [check_text(where, f"responses[{i}]", one) for i, one in enumerate(responses)]


def _answers(columns: Columns, tail: str, asked: Asked) -> tuple[Asked, list[str]]:
    """Responses as texts, chat turns or transcripts, and the prompt with the turns before them."""
    keys = ("chosen", "rejected") if tail == "chosen" else (tail,)
    answers = [_answer(columns, key, asked) for key in keys]
    contexts = [context for context, _ in answers]
    if not same(contexts[0], contexts[-1]):
        hh = isinstance(columns.row["rejected"], str)
        rule = f"must agree with chosen up to the last {'assistant turn' if hh else 'turn'}"
        raise bad(columns.where, "rejected", rule, columns.row["rejected"])
    text = asked.text if same(contexts[0], asked.turns) else ""
    chosen = columns.row[tail]
    if not asked.turns and isinstance(chosen, str):
        text = chosen.rpartition(ASSISTANT)[0] + ASSISTANT
    return Asked(asked.key, text, contexts[0]), [response for _, response in answers]


def _is_known(columns: Columns, asked: Asked) -> bool:
    """Whether the prompt is known without the turns that responses may begin with."""
    answers = (columns.row.get(key) for key in ("chosen", "rejected", "completion"))
    asks = any(turn["role"] == "user" for turn in asked.turns)
    return asks and not any(isinstance(answer, list | dict) for answer in answers)


def _answer(columns: Columns, key: str, asked: Asked) -> tuple[Turns, str]:
    where, value = columns.where, columns.row[key]
    use = "response" if key == "completion" else "responses"
    use = use if asked.turns else f"prompt and {use}"
    if isinstance(value, list | dict):
        before, response = split_response(where, key, columns.turns(key, use))
    else:
        text = check_text(where, key, columns.take(key, use))
        turns = transcript_turns(text) if is_transcript(text) else []
        said = [turn for turn in asked.turns if turn["role"] != "system"]
        if said and not starts_with(turns, said):
            return asked.turns, text
        if not is_answered(turns):
            rule = r'must be a transcript from "\n\nHuman:" to a last "\n\nAssistant:" turn'
            rule += f" where there is no prompt (the keys are {', '.join(sorted(columns.row))})"
            raise bad(where, key, rule, text)
        before, response = split_response(where, key, turns)
    context = join(asked.turns, before)
    if asked.turns and len(context) < len(asked.turns) + len(before):
        columns.notes.append(REPEATED)
    return context, response


def _given(columns: Columns) -> list[str]:
    """The responses that are texts, where a prompt is wanted and they are not checked."""
    values = [columns.row.get(key) for key in TAILS]
    listed = [value if isinstance(value, list) else [value] for value in values]
    return [one for value in listed for one in value if isinstance(one, str)]


def _once(columns: Columns, text: str, responses: list[str]) -> list[str]:
    """The responses without the prompt, where all repeat it."""
    rests = without_prompt(text, responses)
    if rests is None:
        return responses
    columns.notes.append(REPEATED)
    return rests


def _ranking(columns: Columns, tail: str, wanted: Wanted, count: int) -> list[int]:
    if count < 2:
        return []
    if tail == "chosen":
        return pair_ranking(columns)
    if wanted == "responses" and not columns.first("ranking", "ratings", "scores"):
        return [1] * count
    return list_ranking(columns, count)


def _is_desired(columns: Columns) -> bool:
    """Whether a row's one response is not marked as undesired."""
    key = columns.first(*LABELS)
    if not key:
        return True
    value = columns.take(key, "mark of undesired rows")
    if (word := _true_or_false(value)) is None:
        raise bad(columns.where, key, "must be true or false (undesired)", value)
    return word


def _true_or_false(value: Any) -> bool | None:
    """A truth value, which is a word in tables; None for others."""
    word = str(value).strip().lower() if isinstance(value, bool | str) else ""
    return {"true": True, "false": False}.get(word)


# -- what is said about it


def _note(columns: Columns, turns: Turns) -> None:
    if any(one["role"] == other["role"] for one, other in pairwise(turns)):
        columns.notes.append(IN_A_ROW)
    if not all(turn["content"].strip() for turn in turns):
        columns.notes.append(SILENT)
    texts = [turn["content"] for turn in turns]
    led = any(text.rstrip()[-10:].lower() == "assistant:" for text in texts)
    if led or any(mark in text for text in texts for mark in RENDERED):
        columns.notes.append(WRITTEN)


def _name(columns: Columns, tail: str, asked: Asked) -> tuple[str, str]:
    """The format, as a user types it and as it is shown: with the columns that tell."""
    label = columns.first(*LABELS)
    used = [key for key in TURNS if key in columns.uses]
    judged = _true_or_false(columns.row.get(label)) is not None
    ends = ["chosen", "rejected"] if tail == "chosen" else [tail] if tail else []
    turns = isinstance(columns.row.get("prompt"), list)
    told = [asked.key, *ends]
    if judged and tail not in ("chosen", "responses"):
        name, told = "kto", [asked.key, tail or "last turn", label]
    elif asked.key == "instruction":
        about = [key for key in ("input", "context") if key in columns.uses]
        about = about or [key for key in ("input", "context") if key in columns.row]
        name = "dolly" if "context" in about or tail == "response" else "alpaca"
        told = ["instruction", *about, *ends]
    elif asked.key == "chosen" and isinstance(columns.row["chosen"], str):
        name, told = "hh", ends
    elif tail == "chosen":
        name, told = "trl_preference", ends
    elif tail == "completion":
        name, told = "trl_completion", ["prompt", tail]
    elif used and used[0] != "messages":
        name, told = "sharegpt", [used[0]]
    elif used and not tail:
        name, told = "messages", used
    elif turns and not tail:
        name, told = "verl" if "reward_model" in columns else "trl_prompt", ["prompt turns"]
    else:
        name = {"responses": "comparison", "response": "demonstration"}.get(tail, "prompt")
        told += [key for key in ("ranking", "ratings", "scores") if key in columns.uses]
    title = NATIVE[name][0]
    return name, title if told == [title] else f"{title} ({', '.join(told)})"
