"""Notices: sentences about a run that a person should read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Notify = Callable[[str], None]


def silent(_: Any) -> None:
    """Ignore a notice, or any other argument of a callback."""


def once(notify: Notify) -> Notify:
    """Return a callback that passes its first notice on and ignores all later ones."""
    notices: list[str] = []

    def notify_once(sentence: str) -> None:
        if not notices:
            notify(sentence)
        notices.append(sentence)

    return notify_once
