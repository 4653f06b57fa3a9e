"""Notices: sentences about a run that a person should read."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

Notify = Callable[[str], None]
"""Receives notices."""

Progress = Callable[[str, int, int], None]
"""Called with the name of a piece of work, the items done, and all items."""


class Notice(UserWarning):
    """A sentence of a run that a person should read, where nobody listens for it.

    >>> import warnings
    >>> warnings.filterwarnings("ignore", category=dsdistill.Notice)  # keeps them quiet

    It is warned of unless a callback has a method ``on_notice``, as `ProgressBar` does, or the logger
    ``dsdistill`` has a handler of warnings, its own or the root's.
    """


def warn(sentence: str) -> None:
    """Warn of a notice, as of the first line outside this package that led to it."""
    package, frame, level = __name__.partition(".")[0], sys._getframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    warnings.warn(sentence, Notice, stacklevel=level)


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
