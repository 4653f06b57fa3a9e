"""How generated pages are written."""

from __future__ import annotations

from collections.abc import Sequence


def one_line(text: str) -> str:
    """Return a text in one line."""
    return " ".join(text.split())


def prose(text: str) -> str:
    """Make Markdown of a docstring: one line, code between single backticks."""
    return one_line(text).replace("``", "`")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table of Markdown.

    >>> print(table(["a", "b"], [["1|2", "3"]]), end="")
    | a | b |
    | --- | --- |
    | 1\\|2 | 3 |
    """
    lines = [head, ["---"] * len(head), *rows]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in escaped)
