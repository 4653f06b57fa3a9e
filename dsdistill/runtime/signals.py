"""Requests to stop: by a signal, or by an output that can no longer be written.

Work that has a state to save defers them (`deferred_signals`). All other work ends at once: the process of
the command line raises `Stopped` (``dsdistill.runtime.program``), any other does as its own handlers say.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def _present(*names: str) -> tuple[int, ...]:
    """Return the numbers of signals that this system has; Windows lacks some."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


NUMBERS = _present("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
"""Signals that ask a process to stop: Ctrl-C, a kill, a closed terminal, the notice of a scheduler."""

INSISTING = _present("SIGINT", "SIGTERM")
"""Sent twice, they mean at once. A closed terminal sends SIGHUP several times by itself."""


class Interrupted(Exception):
    """A signal asked the run to stop; its state is saved.

    Attributes:
        signal: its number.
        code: with which a program exits: 128 + signal, as shells expect.

    >>> stopped = dsdistill.Interrupted(2)
    >>> stopped.signal, stopped.code, str(stopped)
    (2, 130, 'stopped by SIGINT')
    """

    def __init__(self, number: int, reason: str = "") -> None:
        """Describe a stop.

        Args:
            number: of the signal.
            reason: a sentence in place of the signal's name.
        """
        super().__init__(reason or f"stopped by {signal.Signals(number).name}")
        self.signal = number

    @property
    def code(self) -> int:
        return 128 + self.signal


class Stopped(BaseException):
    """Ends the work of the command line at once. Like a KeyboardInterrupt it is no error to recover from.

    Attributes:
        cause: what asked for it.
    """

    def __init__(self, cause: Interrupted) -> None:
        super().__init__(str(cause))
        self.cause = cause


_deferring: list[list[Interrupted]] = []
"""What has been received by each `deferred_signals` that is open, the innermost last."""


def stop(cause: Interrupted) -> None:
    """Ask the work to stop: after its state is saved if it defers signals, otherwise at once.

    Outside the main thread nothing can be stopped at once, and nothing happens then.

    Raises:
        Stopped: at once.
    """
    if _deferring:
        _deferring[-1].append(cause)
    elif threading.current_thread() is threading.main_thread():
        raise Stopped(cause)


def handlers() -> dict[int, Any]:
    """Return the present handlers of the signals that ask to stop.

    Signals that the process ignores, as SIGHUP under nohup, or that are handled outside Python are left out:
    they are to stay as they are.
    """
    present = {number: signal.getsignal(number) for number in NUMBERS}
    return {number: handler for number, handler in present.items() if handler not in (None, signal.SIG_IGN)}


@contextmanager
def importing() -> Iterator[None]:
    """Import inside this what takes long: a stop of the command line ends its process there, raising nothing.

    Extension modules may take an exception for an error of their own. The handler of the command line, known
    by its attribute ``unwinds``, is told; others do as they do anywhere.
    """
    raising = [handler for handler in handlers().values() if getattr(handler, "unwinds", False)]
    for handler in raising:
        handler.unwinds = False
    try:
        yield
    finally:
        for handler in raising:
            handler.unwinds = True


@contextmanager
def deferred_signals() -> Iterator[list[Interrupted]]:
    """Collect requests to stop in a list; a second SIGINT or SIGTERM acts as usual.

    Whoever opens this looks into the list at every point where the state is saved, and raises the first
    request. A handler with a method ``deferred`` is told the number of the first signal, to acknowledge it.

    Raises:
        Interrupted: at the end, if a request came after the last look.
    """
    received: list[Interrupted] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread can handle signals; other threads end with their process
        return
    earlier = handlers()

    def defer(number: int, frame: FrameType | None) -> None:
        if number in INSISTING:
            signal.signal(number, earlier[number])
        received.append(Interrupted(number))
        if len(received) == 1 and hasattr(earlier[number], "deferred"):
            earlier[number].deferred(number)

    _deferring.append(received)
    for number in earlier:
        signal.signal(number, defer)
    try:
        yield received
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        _deferring.remove(received)
    if received:
        raise received[0]
