"""Templates: how a prompt is written for the model, and where its response ends."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from instructgpt.models.tokenizer import eos_id
from instructgpt.types import Prompt, UserError

CHAT = "{chat_template}"  # stands for the tokenizer's own template
HH = "{transcript}"  # stands for turns as in the HH data

MARK = "\ue000{}\ue001"  # stands for the name of a special token in a prompt

BUILT_IN = {
    "plain": "{prompt}",
    "instruction": "### Instruction:\n{prompt}\n\n### Response:\n",
    "alpaca": (  # Taori et al. 2023, github.com/tatsu-lab/stanford_alpaca
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{prompt}\n\n### Response:"
    ),
    "hh": HH,  # Bai et al. 2022, arXiv:2204.05862
    "chat": CHAT,
}


class RefusedPromptError(UserError):
    """A prompt that a chat template cannot write."""


@dataclass(frozen=True)
class Template:
    """How prompts and responses become tokens, apart, so that sampling sees what training saw.

    Only what the template itself writes can become special tokens: their names in prompts and
    responses are text like any other, but for an end token's at the end of a response.

    Args:
        name: A built-in name, or the pattern itself.
        pattern: Text with ``{prompt}`` in it, or one of the marks of the built-in ones.
    """

    name: str
    pattern: str

    def encode_prompt(self, tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
        """Return the ids of a prompt, BOS in front once where the tokenizer puts it by default."""
        hidden = _hide(tokenizer, prompt)
        if hidden is prompt:
            ids = _encode(tokenizer, self._render(tokenizer, prompt))
        else:
            ids = _encode_hidden(tokenizer, self._render(tokenizer, hidden))
        bos = _default_bos(tokenizer)
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    def cut_prompt(
        self, tokenizer: PreTrainedTokenizerBase, tokens: list[int], limit: int
    ) -> list[int]:
        """Return the last tokens of an encoded prompt; a BOS stays in front.

        Args:
            tokenizer: The tokenizer.
            tokens: Of the prompt.
            limit: How many may stay.
        """
        if len(tokens) <= limit:
            return tokens
        starts = tokens[0] == _default_bos(tokenizer)
        return [tokens[0], *tokens[len(tokens) - limit + 1 :]] if starts else tokens[-limit:]

    def encode_response(
        self, tokenizer: PreTrainedTokenizerBase, text: str, end: bool = True
    ) -> list[int]:
        """Return the ids of a response, and of the token that ends it.

        Args:
            tokenizer: The tokenizer.
            text: The response; an end token written at its end is not doubled.
            end: Whether the response is finished, so that the end token belongs to it.
        """
        if self.pattern == HH and not text[:1].isspace():
            text = f" {text}"
        names = tuple(map(str, tokenizer.convert_ids_to_tokens(self.stop_ids(tokenizer))))
        while text.rstrip().endswith(names):
            text = text.rstrip()
            text = text[: -max(len(name) for name in names if text.endswith(name))]
        ids = _encode_text(tokenizer, text)
        return [*ids, self.end_id(tokenizer)] if end else ids

    def decode_response(self, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
        """Return the text of a response up to its first end token, without special tokens."""
        stops = self.stop_ids(tokenizer)
        length = next((i for i, token in enumerate(tokens) if token in stops), len(tokens))
        text = str(tokenizer.decode(list(tokens[:length]), skip_special_tokens=True))
        return text.removeprefix(" ") if self.pattern == HH else text

    def end_id(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return what ends a response: EOS, or the token that ends a turn of the chat template."""
        if self.pattern != CHAT:
            return eos_id(tokenizer)
        return _turn_end(tokenizer, _chat_template(tokenizer))

    def stop_ids(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Return the tokens at which sampling stops: EOS and the end of an assistant's turn."""
        return sorted({eos_id(tokenizer), self.end_id(tokenizer)})

    def fingerprint(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Name what the template does with this tokenizer, whatever the template is called."""
        text = _chat_template(tokenizer) if self.pattern == CHAT else self.pattern
        end = tokenizer.convert_ids_to_tokens(self.end_id(tokenizer))
        return hashlib.sha256(f"{text}\0{end}".encode()).hexdigest()[:16]

    def _render(self, tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
        if self.pattern == CHAT:
            _chat_template(tokenizer)
            try:
                return str(
                    tokenizer.apply_chat_template(
                        prompt.messages, tokenize=False, add_generation_prompt=True
                    )
                )
            except TemplateError as error:
                reason = " ".join(str(error).split())
                raise RefusedPromptError(
                    f"template: the chat template refuses the prompt: {reason}"
                ) from error
        if self.pattern == HH:
            return "".join(_turn(message) for message in prompt.messages) + "\n\nAssistant:"
        return self.pattern.replace("{prompt}", prompt.text)


def get_template(name: str) -> Template:
    """Return a template by name.

    Args:
        name: plain, instruction, alpaca, hh, chat (the tokenizer's own), or any text with
            ``{prompt}`` in it.
    """
    if name in BUILT_IN:
        return Template(name, BUILT_IN[name])
    if "{prompt}" in name:
        return Template(name, name)
    raise UserError(
        f"template: must be one of {', '.join(BUILT_IN)}, or a text with {{prompt}} in it, "
        f"got '{name}'"
    )


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of a text without special tokens, even where it writes their names."""
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return list(ids)


def _special_names(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Special tokens with their ids, the longest first."""
    added = tokenizer.added_tokens_decoder.items()
    names = {token.content: index for index, token in added if token.special}
    return {name: names[name] for name in sorted(names, key=lambda name: (-len(name), name))}


def _hide(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> Prompt:
    """The prompt with marks for the names of special tokens; itself if it has none."""
    names = list(_special_names(tokenizer))
    written = [prompt.text, *(turn["content"] for turn in prompt.messages)]
    if not any(name in text for name in names for text in written):
        return prompt

    pattern = "|".join(map(re.escape, names))

    def hidden(text: str) -> str:
        return re.sub(pattern, lambda found: MARK.format(names.index(found[0])), text)

    turns = [{**turn, "content": hidden(turn["content"])} for turn in prompt.messages]
    return prompt._replace(text=hidden(prompt.text), messages=turns)


def _encode_hidden(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a rendered prompt: special tokens of the template, and marks as the text they hide."""
    special = _special_names(tokenizer)
    names, ids = list(special), []
    for piece in re.split(f"({'|'.join(map(re.escape, names))})", text):
        if piece in special:
            ids.append(special[piece])
        elif piece:
            for i, name in enumerate(names):
                piece = piece.replace(MARK.format(i), name)
            ids += _encode_text(tokenizer, piece)
    return ids


def _turn(message: dict[str, str]) -> str:
    speaker = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
    return speaker.get(message["role"], "") + message["content"].strip()


def _chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    if not tokenizer.chat_template:
        raise UserError(
            "template: must not be 'chat' for a tokenizer without a chat template, "
            f"'{tokenizer.name_or_path}' has none"
        )
    return str(tokenizer.chat_template)


@lru_cache(maxsize=8)
def _default_bos(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """BOS, if the tokenizer puts it in front of a text unasked."""
    bos = tokenizer.bos_token_id
    return bos if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else None


@lru_cache(maxsize=8)
def _turn_end(tokenizer: PreTrainedTokenizerBase, chat_template: str) -> int:
    """The first special token after an assistant's words, else EOS."""
    mark = "assistant says this"
    turns = [{"role": "user", "content": "user"}, {"role": "assistant", "content": mark}]
    rendered = str(
        tokenizer.apply_chat_template(turns, tokenize=False, chat_template=chat_template)
    )
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    after = _encode(tokenizer, rendered.rpartition(mark)[2])
    return next((token for token in after if token in special), eos_id(tokenizer))
