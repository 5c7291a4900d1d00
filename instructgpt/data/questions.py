"""Prompts that are answered once, outside any stage: read, limited and cut."""

from __future__ import annotations

import sys

from transformers import PreTrainedTokenizerBase

from instructgpt.data.encode import Encoder
from instructgpt.data.formats import Row
from instructgpt.data.rows import PromptRow, joined
from instructgpt.data.sources import load
from instructgpt.data.summary import Summary
from instructgpt.data.tallies import Named, Noted
from instructgpt.models.chat import RefusedPromptError
from instructgpt.models.template import Template
from instructgpt.terminal import note, say
from instructgpt.types import Prompt, UserError

DEFAULT_RESPONSE_TOKENS = 256


def read(path: str) -> tuple[list[Row], list[str]]:
    """The prompts of a file, a folder or a data set, and what there is to say of other columns.

    Args:
        path: of what to read; a bad row is an error.
    """
    summary = Summary()
    rows = load([path], "prompt", "stop", summary)
    for line in summary.all_notes():
        note(line)
    plain = summary.uses() <= {"used as prompt", "used as names"} and not summary.noted
    return rows, [] if plain else [line.strip() for line in summary.reading()]


def response_limit(
    given: list[Row],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    context: int | None,
    asked: int,
) -> int:
    """The limit asked for, else 256 or what the longest prompt leaves of the context.

    A prompt that would leave less than a quarter of the context is not asked: it will be cut.

    Args:
        given: prompts.
        tokenizer: of the policy.
        template: of the policy.
        context: of the policy, None where it has no end.
        asked: by the user; 0 where nothing is.
    """
    if asked or context is None:
        return asked or DEFAULT_RESPONSE_TOKENS
    least = least_response_tokens(context)
    longest = 0
    for row in given:
        try:
            tokens = len(template.encode_prompt(tokenizer, row.prompt))
        except RefusedPromptError:  # left out later
            continue
        if tokens <= context - least:
            longest = max(longest, tokens)
    return min(DEFAULT_RESPONSE_TOKENS, context - longest) if longest else least


def least_response_tokens(context: int) -> int:
    """The room that a response has at least where no limit is asked for.

    Args:
        context: of the policy.
    """
    return max(1, min(DEFAULT_RESPONSE_TOKENS, context // 4))


def encode(
    given: list[Row],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    context: int | None,
    max_response_tokens: int,
) -> list[PromptRow]:
    """Prompts as tokens that leave room for the response, by the rules of ``fit``.

    What is cut or left out is reported; the other prompts are answered all the same.

    Args:
        given: prompts.
        tokenizer: of the policy.
        template: of the policy.
        context: of the policy, None where it has no end.
        max_response_tokens: room that responses need.
    """
    limit = sys.maxsize if context is None else context - max_response_tokens
    if limit <= (frame := _frame_tokens(tokenizer, template)):
        raise UserError(
            "the words of the template and --max_response_tokens must fit into the context of "
            f"{context} tokens, got {frame} + {max_response_tokens}"
        )
    summary = Summary()
    encoder = Encoder(
        tokenizer=tokenizer,
        template=template,
        max_prompt_tokens=limit,
        max_response_tokens=max_response_tokens,
        drop_long_prompts=False,
        summary=summary,
        on_error="skip",
    )
    rows = [
        PromptRow(joined(one.prompt), one.row.prompt, number)
        for number, one in enumerate(encoder.encode(given))
        if one is not None
    ]
    if given and not rows:
        raise UserError(f"no prompt is left to answer: {summary.losses()}")
    room = f"; a context of {context} tokens has no more room beside --max_response_tokens"
    _report("left out", summary.dropped, len(given), "")
    _report("cut", summary.cut, len(given), f"{room} {max_response_tokens}")
    return rows


def _report(verb: str, table: Named[Noted], total: int, why: str) -> None:
    for reason, noted in table.items():
        places = noted.places() + (", …" if noted.count > len(noted.first) else "")
        say(
            f"warning: {noted.count:,} of {total:,} prompts {verb}: {reason} ({places}){why}",
            error=True,
        )


def _frame_tokens(tokenizer: PreTrainedTokenizerBase, template: Template) -> int:
    """What the template writes around a prompt."""
    empty = Prompt("", [{"role": "user", "content": ""}], "", {})
    try:
        return len(template.encode_prompt(tokenizer, empty))
    except RefusedPromptError:  # a chat template may insist on words
        return 0
