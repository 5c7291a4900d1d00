"""HTML written by functions: text is escaped unless it is HTML already."""

from __future__ import annotations

import html
from collections.abc import Iterable

VOID = {"col", "meta"}  # elements without an end


class Html(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


def escape(text: str) -> Html:
    """Text as HTML.

    >>> escape("a < b"), escape(Html("<b>c</b>"))
    ('a &lt; b', '<b>c</b>')
    """
    return text if isinstance(text, Html) else Html(html.escape(text))


def join(parts: Iterable[str | None], between: str = "") -> Html:
    """Parts one after the other; None is left out."""
    return Html(between.join(escape(part) for part in parts if part is not None))


def element(tag: str, *children: str | None, **attributes: str | None) -> Html:
    """One element; children and attributes that are None are left out.

    Args:
        tag: name of the element.
        children: text (escaped) or elements.
        attributes: ``class_`` is written class, ``data_label`` data-label.

    Example:
        >>> element("p", "1 < 2", class_="small")
        '<p class="small">1 &lt; 2</p>'
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")
