"""Sentences for whoever watches a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


Notify = Callable[[str], None]


def once(notify: Notify) -> Notify:
    """Let the first sentence through and no other."""
    told: list[str] = []

    def tell(sentence: str) -> None:
        if not told:
            notify(sentence)
        told.append(sentence)

    return tell
