"""Notices: sentences about a run that a person should read."""

from __future__ import annotations

from collections.abc import Callable

Notify = Callable[[str], None]
"""Receives notices."""

Progress = Callable[[str, int, int], None]
"""Called with the name of a piece of work, the items done, and all items."""


def silent(*_: object) -> None:
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
