"""Templates: how a prompt is written for the model, and where its response ends."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from instructgpt.models.chat import RefusedPromptError, chat_template, render_chat, turn_end
from instructgpt.models.tokenizer import eos_id
from instructgpt.models.transcript import transcript
from instructgpt.models.words import (
    control_tokens,
    count_names,
    encode_texts,
    named_pieces,
    normalizes,
    token_ids,
)
from instructgpt.types import Prompt, UserError

CHAT = "{chat_template}"  # stands for the tokenizer's own template
HH = "{transcript}"  # stands for turns as in the HH data

MARK = "\ue000{}\ue001"  # stands for the name of a special token in a prompt, or for its own start
_MARKED = re.compile(MARK.format("([0-9]+)"))

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

    Every turn of a prompt is written. ``chat`` leaves it to the tokenizer's chat template, and a
    prompt of which that leaves out a turn is refused; ``hh`` writes a transcript with a speaker
    before each turn. The others put a single user turn in the place of ``{prompt}`` as it is, and
    more turns as such a transcript, which ends with "Assistant:" where the response follows it.

    Only what the template itself writes can become control tokens, which are special or have a
    name in brackets: their names in prompts and responses are text like any other, but for an end
    token's at the end of a response, and what the assistant says may hold its own ``<think>``.

    Args:
        name: a built-in name, or the pattern itself.
        pattern: text with ``{prompt}`` in it, or one of the marks of the built-in ones.
    """

    name: str
    pattern: str

    def encode_prompt(self, tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
        """The ids of a prompt, BOS in front once where the tokenizer puts it by default."""
        (ids,) = self.encode_prompts(tokenizer, [prompt])
        if isinstance(ids, RefusedPromptError):
            raise ids
        return ids

    def encode_prompts(
        self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]
    ) -> list[list[int] | RefusedPromptError]:
        """The ids of many prompts, or why one is refused; much faster than one by one.

        Args:
            tokenizer: the tokenizer.
            prompts: as written.
        """
        return self._encode_all(tokenizer, [self._turns(prompt) for prompt in prompts])

    def shorten_prompt(
        self, tokenizer: PreTrainedTokenizerBase, prompt: Prompt, tokens: list[int], limit: int
    ) -> list[int]:
        """The ids of what fits of a prompt: never without its frame, its end comes last.

        A first system turn and the last turns, from a user's on, stay whole. Where not even the
        last of them fit, the oldest texts among them lose their beginning; the system turn does
        only when there is no room for a word beside it. A plain text loses its first tokens.

        Args:
            tokenizer: the tokenizer.
            prompt: as written.
            tokens: of the whole prompt.
            limit: how many may stay.

        Raises:
            RefusedPromptError: not a word fits beside what the template writes around it.
        """
        turns, bare = self._turns(prompt)
        if len(tokens) <= limit or (bare and self.pattern == BUILT_IN["plain"]):
            return self.cut_prompt(tokenizer, tokens, limit)
        first = int(len(turns) > 1 and turns[0]["role"] == "system")
        asked = {i for i, turn in enumerate(turns) if turn["role"] == "user" and turn["content"]}
        starts = [i for i in range(first, len(turns)) if i == first or i in asked]

        def from_turn(start: int) -> list[int]:
            return self._encode(tokenizer, turns[:first] + turns[start:], bare)

        chosen = bisect_left(starts, True, key=lambda start: len(from_turn(start)) <= limit)
        if chosen < len(starts):
            return from_turn(starts[chosen])
        kept = turns[:first] + turns[starts[-1] :]
        for oldest in (first, 0):  # the system turn is touched only if nothing else helps
            cut = kept
            for i in range(oldest, len(kept)):
                cut, ids = self._cut_turn(tokenizer, cut, bare, i, limit)
                if len(ids) <= limit and any(turn["content"].strip() for turn in cut[first:]):
                    return ids
        raise RefusedPromptError(
            f"template: must leave room for words of the prompt within {limit} tokens, "
            f"'{self.name}' takes {len(ids)} without any"
        )

    def _cut_turn(
        self,
        tokenizer: PreTrainedTokenizerBase,
        turns: list[dict[str, str]],
        bare: bool,
        i: int,
        limit: int,
    ) -> tuple[list[dict[str, str]], list[int]]:
        """Turns and ids where turn i loses as much of its beginning as it must, at most all."""
        text, dropped = turns[i]["content"], 0
        starts = _token_starts(tokenizer, text)
        ids = self._encode(tokenizer, turns, bare)
        while len(ids) > limit and dropped < len(starts):
            over = len(ids) - limit  # the rest may fall into other tokens, so not too much at once
            dropped += max(1, over // 2 if dropped else min(over, len(starts) - 1))
            rest = text[starts[dropped] :] if dropped < len(starts) else ""
            turns = [*turns[:i], {**turns[i], "content": rest}, *turns[i + 1 :]]
            ids = self._encode(tokenizer, turns, bare)
        return turns, ids

    def cut_prompt(
        self, tokenizer: PreTrainedTokenizerBase, tokens: list[int], limit: int
    ) -> list[int]:
        """The last tokens of an encoded text; a BOS stays in front.

        Args:
            tokenizer: the tokenizer.
            tokens: of the prompt.
            limit: how many may stay.
        """
        if len(tokens) <= limit:
            return tokens
        starts = tokens[0] == default_bos(tokenizer)
        return [tokens[0], *tokens[len(tokens) - limit + 1 :]] if starts else tokens[-limit:]

    def encode_response(
        self, tokenizer: PreTrainedTokenizerBase, text: str, end: bool = True
    ) -> list[int]:
        """The ids of a response, and of the token that ends it.

        Args:
            tokenizer: the tokenizer.
            text: the response; an end token written at its end is not doubled.
            end: whether the response is finished, so that the end token belongs to it.
        """
        (ids,) = self.encode_responses(tokenizer, [text], end)
        return ids

    def encode_responses(
        self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], end: bool = True
    ) -> list[list[int]]:
        """The ids of many responses; arguments as for ``encode_response``."""
        stops, own = self.stop_ids(tokenizer), [self.end_id(tokenizer)] if end else []
        names = tuple(map(str, tokenizer.convert_ids_to_tokens(stops)))
        written = []
        for text in texts:
            if self.pattern == HH and not text[:1].isspace():
                text = f" {text}"
            while text.rstrip().endswith(names):
                text = text.rstrip()
                text = text[: -max(len(name) for name in names if text.endswith(name))]
            written.append(text)
        return [[*ids, *own] for ids in encode_texts(tokenizer, written, own=True)]

    def decode_response(self, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
        """The text of a response up to its first end token, without special tokens."""
        stops = self.stop_ids(tokenizer)
        length = next((i for i, token in enumerate(tokens) if token in stops), len(tokens))
        text = str(tokenizer.decode(list(tokens[:length]), skip_special_tokens=True))
        return text.removeprefix(" ") if self.pattern == HH else text

    def end_id(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """What ends a response: EOS, or the token that ends a turn of the chat template."""
        if self.pattern != CHAT:
            return eos_id(tokenizer)
        return turn_end(tokenizer, chat_template(tokenizer))

    def stop_ids(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """The tokens at which sampling stops: EOS and the end of an assistant's turn."""
        return sorted({eos_id(tokenizer), self.end_id(tokenizer)})

    def fingerprint(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Name what the template does with this tokenizer, whatever the template is called."""
        text = chat_template(tokenizer) if self.pattern == CHAT else self.pattern
        end = tokenizer.convert_ids_to_tokens(self.end_id(tokenizer))
        return hashlib.sha256(f"{text}\0{end}".encode()).hexdigest()[:16]

    def _turns(self, prompt: Prompt) -> tuple[list[dict[str, str]], bool]:
        """The turns to write, and whether they are one text to write as it is."""
        turns = prompt.messages or [{"role": "user", "content": prompt.text}]
        if self.pattern in {CHAT, HH}:
            return turns, False
        single = len(turns) == 1 and turns[0]["role"] == "user"
        bare = single and turns[0]["content"].strip() == prompt.text.strip()
        return ([{**turns[0], "content": prompt.text}], True) if bare else (turns, False)

    def _encode(
        self, tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], bare: bool
    ) -> list[int]:
        (ids,) = self._encode_all(tokenizer, [(turns, bare)])
        if isinstance(ids, RefusedPromptError):
            raise ids
        return ids

    def _encode_all(
        self, tokenizer: PreTrainedTokenizerBase, prompts: list[tuple[list[dict[str, str]], bool]]
    ) -> list[list[int] | RefusedPromptError]:
        control, bos = control_tokens(tokenizer), default_bos(tokenizer)
        special = control_tokens(tokenizer, own=True)
        found: list[list[int] | RefusedPromptError] = []
        texts: dict[int, str] = {}  # without names of control tokens, by place
        for turns, bare in prompts:
            hidden = _hide(control, special, turns)
            try:
                text = self._render(tokenizer, hidden, bare)
            except RefusedPromptError as error:
                found.append(error)
                continue
            if hidden is turns:
                texts[len(found)] = text
            found.append([] if hidden is turns else _encode_hidden(tokenizer, control, text))
        for place, ids in zip(texts, token_ids(tokenizer, list(texts.values())), strict=True):
            forged = normalizes(tokenizer) and count_names(control, texts[place]) < sum(
                token in control.values() for token in ids
            )
            found[place] = _encode_hidden(tokenizer, control, texts[place]) if forged else ids
        if bos is None:
            return found
        return [
            ids if isinstance(ids, RefusedPromptError) or ids[:1] == [bos] else [bos, *ids]
            for ids in found
        ]

    def _render(
        self, tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], bare: bool
    ) -> str:
        if self.pattern == CHAT:
            return render_chat(tokenizer, turns)
        if self.pattern == HH:
            return transcript(turns)
        if bare:
            text = turns[0]["content"]
        elif self.pattern.endswith("{prompt}"):
            text = transcript(turns)
        else:  # the template itself says whose turn it is
            text = transcript(turns).removesuffix("Assistant:").strip()
        return self.pattern.replace("{prompt}", text)


def get_template(name: str) -> Template:
    """A template by name.

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


def _hide(
    control: dict[str, int], special: dict[str, int], turns: list[dict[str, str]]
) -> list[dict[str, str]]:
    """The turns with marks for the names of control tokens; themselves if they have none.

    Args:
        control: names of all such tokens.
        special: names of those that the assistant must not say either.
        turns: of a prompt.
    """
    places = {name: place for place, name in enumerate([*control, MARK[0]])}

    def hidden(turn: dict[str, str]) -> dict[str, str]:
        text = turn["content"]
        names = [*(special if turn["role"] == "assistant" else control), MARK[0]]
        if not any(name in text for name in names):
            return turn
        pattern = "|".join(map(re.escape, names))
        marked = re.sub(pattern, lambda found: MARK.format(places[found[0]]), text)
        return {**turn, "content": marked}

    changed = [hidden(turn) for turn in turns]
    same = all(one is other for one, other in zip(changed, turns, strict=True))
    return turns if same else changed


def _encode_hidden(
    tokenizer: PreTrainedTokenizerBase, control: dict[str, int], text: str
) -> list[int]:
    """Ids of a rendered prompt: control tokens of the template, and marks as the text they hide."""
    names, ids = [*control, MARK[0]], []
    for piece in named_pieces(tokenizer, control, text):
        if piece in control:
            ids.append(control[piece])
        elif piece:
            shown = _MARKED.sub(lambda found: names[int(found[1])], piece)
            ids += encode_texts(tokenizer, [shown])[0]
    return ids


def _token_starts(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Where in a text its tokens begin."""
    if tokenizer.is_fast:
        encoded = tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        return [start for start, _ in encoded["offset_mapping"]]
    count = len(encode_texts(tokenizer, [text])[0])  # about there
    return [i * len(text) // count for i in range(count)]


@lru_cache(maxsize=8)
def default_bos(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """BOS, if the tokenizer puts it in front of a text unasked."""
    bos = tokenizer.bos_token_id
    return bos if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else None
