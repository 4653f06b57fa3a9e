"""SIGINT and SIGTERM, deferred until a run has saved its state."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """A signal asked the run to stop; its state is saved.

    Attributes:
        signal: its number. A program exits with 128 + signal, as shells expect.

    >>> stopped = dsdistill.Interrupted(2)
    >>> stopped.signal, str(stopped)
    (2, 'stopped by SIGINT')
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Collect the numbers of SIGINT and SIGTERM in a list; a second one of either kills as usual."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread can handle signals; other threads end with their process
        return
    earlier: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def defer(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, earlier[number] or signal.SIG_DFL)

    for number in earlier:
        signal.signal(number, defer)
    try:
        yield received
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler or signal.SIG_DFL)
