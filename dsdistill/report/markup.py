"""Texts, tables and lists as HTML shows them."""

from __future__ import annotations

import html
from collections.abc import Sequence

from dsdistill.text import plain, plain_lines

LONG = 2000
"""Characters of a sentence, at most."""

_NARROW = 4  # columns that a phone has room for


def escape(text: str, most: int = 500) -> str:
    """Return a text in one line of at most so many characters, without tags or control characters.

    >>> escape("<b>one\\ntwo")
    '&lt;b&gt;one\\\\ntwo'
    """
    return html.escape(plain(text, most))


def escape_lines(text: str) -> str:
    """Return a text of any number of lines, without tags or control characters."""
    return html.escape(plain_lines(text))


def link(href: str, text: str) -> str:
    """Return a link to a place on the page.

    >>> link("#cell-1", "50.0")
    '<a href="#cell-1">50.0</a>'
    """
    return f'<a href="{escape(href)}">{escape(text)}</a>'


def sentences(listed: Sequence[str]) -> str:
    """Return a list; empty where there is nothing to list."""
    return f"<ul>{''.join(f'<li>{escape(each, LONG)}</li>' for each in listed)}</ul>" if listed else ""


def note(text: str) -> str:
    """Return a paragraph on how something is to be read; empty where there is nothing to say."""
    return f'<p class="quiet">{escape(text, LONG)}</p>' if text else ""


def heading(name: str, number: bool = True) -> str:
    """Return the head of a column."""
    kind = ' class="number"' if number else ""
    return f'<th scope="col"{kind}>{escape(name)}</th>'


def number(text: str, kind: str = "") -> str:
    """Return a number's cell in a table."""
    return f'<td class="{f"number {kind}".strip()}">{escape(text)}</td>'


def table(name: str, head: Sequence[str], body: str) -> str:
    """Return a table in a region of its own, which scrolls on a phone; a wide one says so there.

    Args:
        head: the heads of its columns. body: its rows, with or without ``<tbody>``. Both are HTML.
    """
    cue = '<p class="cue" aria-hidden="true">Swipe for more columns →</p>' if len(head) > _NARROW else ""
    rows = body if body.startswith("<tbody") else f"<tbody>{body}</tbody>"
    return (
        f'{cue}<div class="scroll" role="region" aria-label="{escape(name)}" tabindex="0">'
        f"<table><thead><tr>{''.join(head)}</tr></thead>{rows}</table></div>"
    )
