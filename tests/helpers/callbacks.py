"""Callbacks made of functions, and a logger that nobody handles."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from dsdistill.runtime import callbacks
from dsdistill.runtime.callbacks import Callback
from dsdistill.runtime.notice import silent


class Told(Callback):
    """Calls a function for each kind of event that a test looks at."""

    def __init__(
        self,
        *,
        notify: Callable[[str], object] = silent,
        inform: Callable[[str], object] = silent,
        started: Callable[[Any], object] = silent,
        estimated: Callable[[Any], object] = silent,
        progress: Callable[[str, int, int], object] = silent,
        read: Callable[[str, int, int], object] = silent,
    ) -> None:
        self.on_notice, self.on_info = notify, inform  # type: ignore[method-assign, assignment]
        self.on_start, self.on_estimate = started, estimated  # type: ignore[method-assign, assignment]
        self.on_progress, self.on_read = progress, read  # type: ignore[method-assign, assignment]


class Closed(Callback):
    """Counts how often it was closed."""

    def __init__(self) -> None:
        self.times = 0

    def on_close(self) -> None:
        self.times += 1


def unhandled(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """Return a logger without handlers that show anything, put in the place of the package's."""
    logger = logging.Logger("dsdistill")
    logger.addHandler(logging.NullHandler())
    monkeypatch.setattr(callbacks, "_log", logger)
    return logger


class Killed(BaseException):
    """Raised by a callback of an iteration: nothing is saved on its account, as on a kill."""
