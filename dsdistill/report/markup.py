"""Texts as HTML shows them."""

from __future__ import annotations

import html

from dsdistill.text import plain, plain_lines


def escape(text: str, most: int = 500) -> str:
    """Return a text in one line of at most so many characters, without tags or control characters.

    >>> escape("<b>one\\ntwo")
    '&lt;b&gt;one\\\\ntwo'
    """
    return html.escape(plain(text, most))


def escape_lines(text: str) -> str:
    """Return a text of any number of lines, without tags or control characters."""
    return html.escape(plain_lines(text))
