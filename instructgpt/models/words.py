"""Words as tokens: what a text says is never a control token, even where it writes its name."""

from __future__ import annotations

import json
import re
import secrets
from functools import lru_cache
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from instructgpt.models.transformers_private import encodes_plainly

BRACKETED = re.compile(r"<\S+>|\[\S+\]")
"""Names of added tokens that structure a text, such as <think>; others are letters or spaces."""

NEVER = -1e9  # the score of a piece that no text is made of


def control_tokens(tokenizer: PreTrainedTokenizerBase, own: bool = False) -> dict[str, int]:
    """The names of control tokens with their ids, the longest first: special or in brackets.

    Args:
        tokenizer: the tokenizer.
        own: only those that the assistant's words must not hold either: special ones. A model
            that thinks writes ``<think>`` itself.
    """
    names = {
        token.content: index
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.special or (not own and BRACKETED.fullmatch(token.content))
    }
    return {name: names[name] for name in sorted(names, key=lambda name: (-len(name), name))}


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], own: bool = False
) -> list[list[int]]:
    """The ids of texts without control tokens, even where they write their names.

    Args:
        tokenizer: the tokenizer.
        texts: of any length.
        own: whether the assistant says them, whose ``<think>`` is that token.
    """
    found = token_ids(tokenizer, texts, split_special_tokens=True)
    names = control_tokens(tokenizer, own)
    control = set(names.values()) - {tokenizer.unk_token_id}  # which unknown words are, too
    for place, ids in enumerate(found):
        if not control.isdisjoint(ids):
            found[place] = _spelled(tokenizer, frozenset(names), texts[place])
    return found


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], **how: bool) -> list[list[int]]:
    """The ids of texts as the tokenizer reads them, nothing put around them.

    Args:
        tokenizer: the tokenizer.
        texts: of any length.
        how: ``split_special_tokens``, whether names of special tokens are text.
    """
    if not texts:  # which not every tokenizer takes
        return []
    # verbose: texts may be longer than the context, which is no news here
    asked: dict[str, Any] = {"return_attention_mask": False, "verbose": False, **how}
    if len(texts) > 1 and encodes_plainly(tokenizer):
        # The same, but without the place of each token in its text: a sixth of the time less.
        tokenizer(texts[:1], add_special_tokens=False, **asked)  # no limits, no padding, ``how``
        found = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [one.ids for one in found]
    return list(tokenizer(texts, add_special_tokens=False, **asked)["input_ids"])


def named_pieces(tokenizer: PreTrainedTokenizerBase, names: dict[str, int], text: str) -> list[str]:
    """A text cut before and behind each name; white space goes where a token takes it along.

    Args:
        tokenizer: the tokenizer.
        names: of control tokens, the longest first.
        text: to cut.
    """
    pieces = re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]
    added = tokenizer.added_tokens_decoder
    for place in range(1, len(pieces), 2):
        token = added[names[pieces[place]]]
        if token.lstrip:
            pieces[place - 1] = pieces[place - 1].rstrip()
        if token.rstrip:
            pieces[place + 1] = pieces[place + 1].lstrip()
    return pieces


def normalizes(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a name can be written in other letters, which become it before tokens are found."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and backend.normalizer is not None


def count_names(names: dict[str, int], text: str) -> int:
    """How many names stand in a text.

    Args:
        names: of control tokens, the longest first.
        text: to look at.
    """
    return len(re.findall("|".join(map(re.escape, names)), text)) if names else 0


def _spelled(tokenizer: PreTrainedTokenizerBase, names: frozenset[str], text: str) -> list[int]:
    """The ids of a text in which names of tokens are spelled out."""
    if encodes_plainly(tokenizer):
        ids: list[int] = _without(tokenizer, names).encode(text, add_special_tokens=False).ids
        return ids
    # What prepares texts itself cannot be copied: it reads no name whose first letter stands apart.
    starts = re.finditer(f"(?={'|'.join(map(re.escape, names))})", text)
    cuts = [0, *(found.start() + 1 for found in starts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(cuts) if start < end]
    return [one for ids in token_ids(tokenizer, pieces, split_special_tokens=True) for one in ids]


@lru_cache(maxsize=8)
def _without(tokenizer: PreTrainedTokenizerBase, names: frozenset[str]) -> Tokenizer:
    """A copy of what is in a tokenizer that does not know tokens by these names.

    Left out of the list, an added token would leave its id to the next; so it gets a name that
    nobody can write. Models of pieces or words may have the names in their vocabulary, too.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    model, secret = state["model"], secrets.token_hex(32)
    kind, vocabulary = model["type"], model["vocab"]
    known = {one[0] for one in vocabulary} if kind == "Unigram" else set(vocabulary)
    if kind == "Unigram":
        model["vocab"] = [[one, NEVER if one in names else score] for one, score in vocabulary]
    elif kind in ("WordLevel", "WordPiece"):
        hidden = names - {model["unk_token"]}
        model["vocab"] = {
            f"{secret}{index}" if one in hidden else one: index for one, index in vocabulary.items()
        }
    state["added_tokens"] = [
        token if token["content"] not in names else {**token, "content": f"{secret}{token['id']}"}
        for token in state["added_tokens"]
        if token["content"] not in names or token["content"] not in known
    ]
    return Tokenizer.from_str(json.dumps({**state, "truncation": None, "padding": None}))
