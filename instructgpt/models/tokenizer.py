"""Tokenizers: loading one, training a byte-level BPE, and telling whether two are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from instructgpt.models.checksums import check_files, is_weights
from instructgpt.models.source import ARTEFACT_FILE, explained, located
from instructgpt.types import UserError

# Qwen 2's. AutoTokenizer forces it on every tokenizer beside a Qwen 2 model; with another one,
# plain transformers would read an artefact's text differently than we do.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class BPE:
    """A byte-level BPE tokenizer to train on text; no character is unknown to it.

    Args:
        vocab_size: tokens in the vocabulary, special tokens and the 256 bytes included; fewer if
            the text has fewer pairs.
        special_tokens: the first ends every response and text (EOS), the second, if given, is the
            padding token; further ones are only reserved.
    """

    vocab_size: int = 8192
    special_tokens: list[str] = field(default_factory=lambda: ["<|endoftext|>", "<|pad|>"])

    def __post_init__(self) -> None:
        """Check the values."""
        tokens = self.special_tokens
        if not tokens or len(set(tokens)) < len(tokens) or not all(tokens):
            raise UserError(
                f"special_tokens must be one or more distinct non-empty strings, got {tokens}"
            )
        if self.vocab_size < 256 + len(tokens):
            raise UserError(
                f"vocab_size must be >= {256 + len(tokens)}, the bytes and special tokens, "
                f"got {self.vocab_size}"
            )


def train_bpe(texts: Iterable[str], spec: BPE) -> PreTrainedTokenizerFast:
    """Train a tokenizer; the same texts in the same order give the same tokenizer.

    Args:
        texts: what to train on.
        spec: size and special tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocab_size,
        special_tokens=spec.special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    end, *others = spec.special_tokens
    named: dict[str, Any] = {"pad_token": others[0]} if others else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=end,
        eos_token=end,
        clean_up_tokenization_spaces=False,
        **named,
    )


def load_tokenizer(source: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder or hub id.

    Args:
        source: folder or hub id.
        trust_remote_code: whether code that comes with the tokenizer may run.

    Raises:
        UserError: nothing there, or it holds no tokenizer.
    """
    located(source, "tokenizer")
    check_files(source, lambda name: not is_weights(name))
    with explained(f"tokenizer: cannot load that of '{source}'"):
        if (Path(source) / ARTEFACT_FILE).is_file():
            kind = json.loads((Path(source) / "tokenizer_config.json").read_text())
            if kind["tokenizer_class"] == PreTrainedTokenizerFast.__name__:
                # AutoTokenizer may take the model type's own tokenizer, which splits otherwise.
                return PreTrainedTokenizerFast.from_pretrained(source)  # type: ignore[no-any-return]
        try:
            return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        except ValueError as error:
            if trust_remote_code or "custom code" not in str(error):
                raise
            raise UserError(
                f"tokenizer: that of '{source}' comes with code of its own, which is not run; "
                "it must be a tokenizer that transformers knows"
            ) from error


def eos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that ends a response; a tokenizer without one is a UserError."""
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"tokenizer: '{tokenizer.name_or_path}' must have an EOS token, it has none"
        )
    return int(tokenizer.eos_token_id)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that fills up rows: the padding token, else EOS (masks never come from ids)."""
    return eos_id(tokenizer) if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


def id_count(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many ids an embedding must have: one more than the highest of a token."""
    return max(tokenizer.get_vocab().values()) + 1


def only_pads(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether there is a padding token that never stands in a text, as EOS or a turn's end."""
    roles = dict(tokenizer.special_tokens_map)
    pad = roles.pop("pad_token", None)
    template = str(tokenizer.chat_template or "")
    return not (pad is None or pad in roles.values() or pad in template or "pad_token" in template)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Name all that decides the ids of a text, BOS included, and EOS; padding plays no part."""
    facts: dict[str, Any] = {"eos": tokenizer.eos_token}
    padding = {tokenizer.pad_token} if only_pads(tokenizer) else set()
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        facts |= {part: state[part] for part in ("model", "normalizer", "pre_tokenizer")}
    else:
        facts["vocabulary"] = {
            token: index for token, index in tokenizer.get_vocab().items() if token not in padding
        }
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    if (default := tokenizer("a")["input_ids"]) != bare:
        facts["default"] = list(default)  # with BOS or whatever else is put around a text
    facts["added"] = {
        index: [token.content, *_flags(token)] if _flags(token) else token.content
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.content not in padding
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _flags(token: AddedToken) -> list[str]:
    """How an added token is found in a text, where it differs from a special token's default."""
    names = ("lstrip", "rstrip", "single_word", "normalized")
    return [name for name in names if getattr(token, name)] + ["ordinary"] * (not token.special)
