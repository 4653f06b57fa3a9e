"""The process of the command line: its streams, its signals and its exit code.

All of it is in place before anything that takes time is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from dsdistill.runtime import launch, streams
from dsdistill.runtime.signals import INSISTING, Interrupted, Stopped, handlers
from dsdistill.runtime.streams import OutputLost, say
from dsdistill.runtime.waiting import choose_waiting

_GRACE = 10.0
"""Seconds in which a stopped command has to end; what swallowed its `Stopped` does not keep it alive."""
_SOON = 0.02


class StopHandler:
    """Handles the signals that ask the process to stop.

    Attributes:
        unwinds: whether `Stopped` ends the work, so that temporary files go and the terminal is put back.
            Imports are not left that way, since extension modules may take it for an error of their own.
        stopped: whether it has.
    """

    def __init__(self) -> None:
        self.unwinds = self.stopped = self._raised_again = False

    def install(self) -> None:
        """Handle every signal that is not ignored."""
        for number in handlers():
            signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        cause = Interrupted(number)
        if self.stopped or not self.unwinds:
            leave(cause)
        self.stopped = True
        self._stop(cause)

    def _stop(self, cause: Interrupted) -> NoReturn:
        """Raise `Stopped`; the process ends within some seconds, whatever becomes of it."""
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, lambda *_: leave(cause))
            signal.setitimer(signal.ITIMER_REAL, _GRACE)
        raise Stopped(cause)

    def unraisable(self, error: sys.UnraisableHookArgs) -> None:
        """Print an exception that nothing could catch; a stop, as in a destructor, is raised once more."""
        if not isinstance(stop := error.exc_value, Stopped):
            sys.__unraisablehook__(error)
        elif hasattr(signal, "setitimer") and not self._raised_again:
            self._raised_again = True
            cause = stop.cause
            signal.signal(signal.SIGALRM, lambda *_: self._stop(cause))
            signal.setitimer(signal.ITIMER_REAL, _SOON)

    def deferred(self, number: int) -> None:
        """Acknowledge a signal that waits for the state to be saved."""
        if not launch.is_first():
            return
        name = signal.Signals(number).name
        again = "Ctrl-C once more" if number == signal.SIGINT else f"a second {name}"
        ends = f"; {again} ends at once" * (number in INSISTING)
        # On a terminal the line goes below the bar and its ^C.
        say("\n" * os.isatty(2) + f"dsdistill: stopping on {name}: the state is being saved{ends}")


def leave(cause: Interrupted) -> NoReturn:
    """End the process at once."""
    say(f"dsdistill: {cause}")
    os._exit(cause.code)


def run(load: Callable[[], Callable[[], int]]) -> NoReturn:
    """Run a program and exit with its code.

    Args:
        load: imports the program and returns its main function, which returns the exit code.
    """
    choose_waiting()
    streams.guard()
    handler = StopHandler()
    handler.install()
    sys.unraisablehook = handler.unraisable
    try:
        main = load()
        handler.unwinds = True
        code = main()
    except Stopped as stop:
        code = stop.cause.code
        if not isinstance(stop.cause, OutputLost):
            say(f"dsdistill: {stop.cause}")
    handler.unwinds = False
    lost = streams.lost()
    if lost and not code:
        code = lost.code
    if handler.stopped:  # threads may still work, such as a compiler's, and exiting would wait for them
        os._exit(code)
    sys.exit(code)
