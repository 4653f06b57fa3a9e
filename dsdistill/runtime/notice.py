"""Notices: sentences about a run that a person should read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Notify = Callable[[str], None]
"""Receives notices."""


def silent(_: Any) -> None:
    """Ignore a notice, or the argument of another callback.

    >>> silent("nobody reads this")
    """


def once(notify: Notify) -> Notify:
    """Return a callback that passes its first notice on and ignores all later ones.

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
