"""Templates: how a prompt is written for the model, and where its response ends."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from instructgpt.models.tokenizer import eos_id
from instructgpt.types import Prompt, UserError

CHAT = "{chat_template}"  # stands for the tokenizer's own template
HH = "{transcript}"  # stands for turns as in the HH data

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


@dataclass(frozen=True)
class Template:
    """How prompts and responses become tokens, apart, so that sampling sees what training saw.

    Args:
        name: A built-in name, or the pattern itself.
        pattern: Text with ``{prompt}`` in it, or one of the marks of the built-in ones.
    """

    name: str
    pattern: str

    def encode_prompt(self, tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
        """Return the ids of a prompt, BOS in front once where the tokenizer puts it by default."""
        ids = _encode(tokenizer, self._render(tokenizer, prompt))
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
        ids = _encode(tokenizer, text)
        stops = self.stop_ids(tokenizer)
        while ids and ids[-1] in stops:
            ids.pop()
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
            return str(
                tokenizer.apply_chat_template(
                    prompt.messages, tokenize=False, add_generation_prompt=True
                )
            )
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
