"""The tokenizer of the world: one token a word."""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING

from instructgpt.miniature.world.knowledge import CLASSES, NUMBERS, TOXIC, TRUTH
from instructgpt.miniature.world.prompts import (
    CATEGORIES,
    TOXIC_KINDS,
    few_shot_prefix,
    make_task,
    toxic_task,
)
from instructgpt.miniature.world.responses import STYLES, respond
from instructgpt.miniature.world.tasks import LARGEST, ZORG
from instructgpt.miniature.world.text import CAPITALS, NEWLINE
from instructgpt.miniature.world.web import DOCUMENTS, QUOTED, web_document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN = "<pad>", "<eos>", "<unk>"
SAMPLES = 100  # prompts of a use case and style; what they say beside known words is little


@cache
def vocabulary() -> list[str]:
    """All words of the world, whatever its seed and sizes."""
    words = {CAPITALS, NEWLINE, "+", "=", *CLASSES, *NUMBERS, *TOXIC, *QUOTED}
    words.update(*TRUTH, TRUTH.values(), ZORG, ZORG.values(), map(str, range(LARGEST + 1)))
    rng = random.Random("vocabulary")
    for style in STYLES:
        for category in CATEGORIES:
            for _ in range(SAMPLES):
                task = make_task(rng, category)
                words.update(task.tokens, respond(task, rng, style))
        for kind in TOXIC_KINDS:
            words.update(few_shot_prefix(toxic_task(rng, kind).tokens))
    for kind in DOCUMENTS:
        for _ in range(SAMPLES):
            words.update(web_document(rng, kind))
    return sorted(words)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Make the tokenizer; it is the same for every seed."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [PAD, END, UNKNOWN, *vocabulary()]
    words = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(NEWLINE), "isolated"),
            pre_tokenizers.Split(Regex(" +"), "removed"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix=UNKNOWN, cleanup=False),  # a space in front of each token
            decoders.Fuse(),
            decoders.Replace(Regex(" ?\n ?"), NEWLINE),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )
