"""Chat templates of tokenizers: what they write, and that they write all of a prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from instructgpt.models.tokenizer import eos_id
from instructgpt.types import UserError

SLOT = "\ue002{}\ue003"  # stands for the words of a turn, to see what a template does with them
SHOWN = 40  # characters of a turn in messages


class RefusedPromptError(UserError):
    """A prompt that a template cannot write."""


def chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's chat template; a tokenizer without one is a UserError."""
    if not tokenizer.chat_template:
        raise UserError(
            "template: must not be 'chat' for a tokenizer without a chat template, "
            f"'{tokenizer.name_or_path}' has none"
        )
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:  # several, none of them the default
        rule = f"must have a default chat template, '{tokenizer.name_or_path}' has"
        raise UserError(f"template: {rule} {', '.join(tokenizer.chat_template)}") from error


def render_chat(tokenizer: PreTrainedTokenizerBase, turns: Sequence[dict[str, str]]) -> str:
    """A prompt as the chat template writes it, up to where the response begins.

    Args:
        tokenizer: with a chat template.
        turns: of the prompt.

    Raises:
        RefusedPromptError: the template refuses the turns, fails, or leaves one out.
    """
    template = chat_template(tokenizer)
    text = _apply(tokenizer, turns) + response_header(tokenizer, template)
    fault = _fault(tokenizer, template, tuple(turn["role"] for turn in turns))
    lost = (turn for turn in turns if not _holds(text, turn["content"].strip()))
    if fault is None and (turn := next(lost, None)) is not None:
        words = turn["content"].strip()
        shown = words if len(words) <= SHOWN else f"{words[:SHOWN]}…"
        fault = f"leaves out words of the {turn['role']} turn {shown!r}"
    if fault is not None:
        raise RefusedPromptError(f"template: the chat template {fault}")
    return text


@lru_cache(maxsize=8)
def turn_end(tokenizer: PreTrainedTokenizerBase, template: str) -> int:
    """The first special token after an assistant's words, else EOS.

    Args:
        tokenizer: with a chat template.
        template: that one; what is remembered depends on it.
    """
    rendered = _apply(tokenizer, _exchange(), generation=False)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    after = tokenizer(rendered.rpartition(SLOT.format(1))[2], add_special_tokens=False)
    return next((token for token in after["input_ids"] if token in special), eos_id(tokenizer))


def _exchange() -> list[dict[str, str]]:
    roles = enumerate(("user", "assistant"))
    return [{"role": role, "content": SLOT.format(i)} for i, role in roles]


def _apply(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[dict[str, str]], generation: bool = True
) -> str:
    """What the chat template writes; whatever it raises is one line."""
    try:
        return str(
            tokenizer.apply_chat_template(
                list(turns), tokenize=False, add_generation_prompt=generation
            )
        )
    except Exception as error:  # a template is a program: 1/0, {% include %}, ...
        reason = " ".join(str(error).split())
        if type(error) is TemplateError:  # its own raise_exception
            said = f"refuses the prompt: {reason}"
        else:
            said = f"fails with {type(error).__name__}: {reason}"
        raise RefusedPromptError(f"template: the chat template {said}") from error


@lru_cache(maxsize=8)
def response_header(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """What to add before a response: its header, if the template only writes it with words.

    Without it a response would be glued to the turn before.

    Args:
        tokenizer: with a chat template.
        template: that one; what is remembered depends on it.
    """
    said, answer = _exchange()
    asked = _apply(tokenizer, [said])
    if asked != _apply(tokenizer, [said], generation=False):
        return ""
    before = _apply(tokenizer, [said, answer], generation=False).partition(answer["content"])[0]
    header = before.removeprefix(asked) if before.startswith(asked) else ""
    return header if header.strip() else ""


@lru_cache(maxsize=1024)
def _fault(tokenizer: PreTrainedTokenizerBase, template: str, roles: tuple[str, ...]) -> str | None:
    """What the template does wrong with turns of these roles, whatever their words."""
    slots = [SLOT.format(i) for i in range(len(roles))]
    turns = [{"role": role, "content": slot} for role, slot in zip(roles, slots, strict=True)]
    try:
        text = _apply(tokenizer, turns)
    except RefusedPromptError:  # by its words: the prompt itself was not refused
        return None
    for role, slot in zip(roles, slots, strict=True):
        if slot not in text:
            return f"leaves out the {role} turn"
    order = sorted(range(len(roles)), key=lambda i: text.index(slots[i]))
    for before, i in pairwise(order):
        between = text[text.index(slots[before]) + len(slots[before]) : text.index(slots[i])]
        # Many put the system's words in front of the user's, which is what the model learned.
        if not between.strip() and roles[before] != "system":
            return f"writes the {roles[i]} turn without a speaker behind the {roles[before]} turn"
    return None


def _holds(text: str, words: str) -> bool:
    """Whether words stand in a text, as they are or as JSON (results of tools)."""
    return words in text or json.dumps(words, ensure_ascii=False)[1:-1] in text
