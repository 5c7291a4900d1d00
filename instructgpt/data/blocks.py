"""Plain text into blocks of tokens, as GPT was pretrained."""

from __future__ import annotations

from itertools import groupby

import torch
from transformers import PreTrainedTokenizerBase

from instructgpt.data.formats import Document
from instructgpt.data.order import hold_out
from instructgpt.data.rows import LanguageRow, Span
from instructgpt.data.sources import OnError, load
from instructgpt.data.summary import Summary
from instructgpt.models.tokenizer import eos_id
from instructgpt.types import UserError, require

SECTION = 16384
"""Longer documents are held out section by section (characters)."""


def encode_documents(
    documents: list[Document], tokenizer: PreTrainedTokenizerBase, summary: Summary
) -> list[list[int]]:
    """Token ids of each document, without EOS; names of special tokens are text like any other."""
    encoded: list[list[int]] = []
    for start in range(0, len(documents), 1024):
        texts = [document.text for document in documents[start : start + 1024]]
        # verbose: documents are longer than the context, which is no news here
        encoded += tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
    for tokens in encoded:
        summary.measure("document tokens", len(tokens))
    return encoded


def make_blocks(
    encoded: list[list[int]], eos: int, block_size: int, summary: Summary, name: str
) -> list[LanguageRow]:
    """Join documents by EOS and cut the result into rows.

    Documents of a block see each other, as in GPT. The last block is as long as it happens to be.

    Args:
        encoded: token ids of the documents.
        eos: id that ends each document.
        block_size: tokens of a row.
        summary: told how many blocks there are.
        name: what the blocks are for, in the summary.
    """
    tokens = torch.tensor([token for document in encoded for token in (*document, eos)])
    blocks = [block for block in tokens.split(block_size) if len(block) > 1]
    if blocks:
        last = len(blocks[-1])
        short = f"; the last one has {last:,} and is padded" if last < block_size else ""
        summary.note(f"{name}: {len(blocks):,} blocks of {block_size:,} tokens{short}")
    return [
        LanguageRow(block, (Span(0, 1, len(block)),), (f"{name} block {number}",))
        for number, block in enumerate(blocks)
    ]


def load_blocks(
    names: str | list[str],
    tokenizer: PreTrainedTokenizerBase,
    block_size: int,
    on_error: OnError,
    summary: Summary,
) -> list[LanguageRow]:
    """Blocks of a pretraining mix."""
    files = [names] if isinstance(names, str) else names
    documents = load(files, "text", on_error, summary)
    encoded = encode_documents(documents, tokenizer, summary)
    blocks = make_blocks(encoded, eos_id(tokenizer), block_size, summary, "pretraining mix")
    if not blocks:
        raise UserError(f"--data.pretraining: no rows left: {summary.losses()}")
    return blocks


def check_block_size(key: str, value: int) -> None:
    """Refuse blocks in which nothing can be predicted."""
    require(value >= 2, f"--data.{key}", ">= 2", value)


def sections(document: Document) -> list[Document]:
    """Cut a long document behind ends of lines."""
    pieces, text, start = [], document.text, 0
    while len(text) - start > SECTION:
        end = text.rfind("\n", start, start + SECTION) + 1 or start + SECTION
        pieces.append(text[start:end])
        start = end
    return [Document(document.where, piece) for piece in (*pieces, text[start:]) if piece]


def split_documents(
    groups: list[list[Document]], fraction: float, seed: int
) -> tuple[list[list[Document]], list[Document]]:
    """Hold out text by its hash: whole documents, and sections of long ones.

    A few long books would make any split of documents lopsided. Sections that stay neighbours are
    one document again, so no EOS comes between them.

    Args:
        groups: sets of documents.
        fraction: of the sections to hold out.
        seed: of the hash.

    Returns:
        The sets without what is held out, and what is held out.
    """
    cut = [
        (g, d, s)
        for g, docs in enumerate(groups)
        for d, doc in enumerate(docs)
        for s in sections(doc)
    ]
    chosen = hold_out([section.text for _, _, section in cut], fraction, seed)
    rest: list[list[Document]] = [[] for _ in groups]
    held: list[Document] = []
    runs = groupby(zip(cut, chosen, strict=True), key=lambda pair: (pair[0][:2], pair[1]))
    for ((g, _), out), run in runs:
        parts = [section for (_, _, section), _ in run]
        whole = Document(parts[0].where, "".join(part.text for part in parts))
        (held if out else rest[g]).append(whole)
    return rest, held
