"""Long documents in sections, which are tokenised and held out one by one."""

from __future__ import annotations

from instructgpt.data.formats import Document

SECTION = 16384
"""Longer documents are cut (characters): a few long books would make any split lopsided."""


def sections(document: Document) -> list[Document]:
    """Cut a long document behind ends of lines."""
    pieces, text, start = [], document.text, 0
    while len(text) - start > SECTION:
        end = text.rfind("\n", start, start + SECTION) + 1 or start + SECTION
        pieces.append(text[start:end])
        start = end
    return [Document(document.where, piece) for piece in (*pieces, text[start:]) if piece]
