"""An extension of griffe, which reads docstrings for the site: examples that begin with >>> become code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"(?:^ *(?:>>>|\.\.\.) .*\n(?:^ *\S.*\n)*)+", re.M)


def fenced(docstring: str) -> str:
    """Put examples into fences, which Markdown would take for quotations.

    >>> fenced("Add.\\n\\n>>> 1 + 1\\n2\\n")
    'Add.\\n\\n```pycon\\n>>> 1 + 1\\n2\\n```\\n'
    """
    return _EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}```\n", docstring.rstrip("\n") + "\n")


class Doctests(griffe.Extension):
    """Fence the examples of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
