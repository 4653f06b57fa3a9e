"""Sentences for whoever watches a run."""

from __future__ import annotations

from collections.abc import Callable

Notify = Callable[[str], None]
"""Receives sentences worth reading."""


def silent(sentence: str) -> None:
    """Drop a sentence.

    >>> silent("nobody reads this")
    """


def once(notify: Notify) -> Notify:
    """Let the first sentence through and no other.

    >>> notify = once(print)
    >>> for sentence in ("running without torch.compile", "running without torch.compile"):
    ...     notify(sentence)
    running without torch.compile
    """
    sentences: list[str] = []

    def notify_once(sentence: str) -> None:
        if not sentences:
            notify(sentence)
        sentences.append(sentence)

    return notify_once
