"""What the command line shows of a run on stderr, and where it writes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from dsdistill.cli import console
from dsdistill.errors import UserError
from dsdistill.loggers.displays import Display, display_on
from dsdistill.loggers.named import loggers_of
from dsdistill.loggers.progress import ProgressBar
from dsdistill.runtime import launch
from dsdistill.runtime.callbacks import Callback, Listener
from dsdistill.text import clock

if TYPE_CHECKING:
    from dsdistill.bench.runner import Event


def callbacks_of(quiet: bool, verbose: bool, log: Sequence[str] | None, name: str) -> list[Listener]:
    """Return the callbacks of a command.

    Args:
        quiet: show neither progress nor notices.
        verbose: show details too.
        log: writers, as --log names them.
        name: of the run.

    Raises:
        UserError: quiet and verbose at once; or a writer is unknown or not installed.
    """
    if quiet and verbose:
        raise UserError("--quiet and --verbose exclude each other; leave one out")
    if not launch.is_first():  # another process of the run speaks
        return []
    display = _Quiet() if quiet else ProgressBar(verbose, console.err)
    writers = loggers_of(log or (), name)
    for each in writers if not quiet else ():
        console.notify(f"--log: {type(each).__name__} writes to {each.place}", style="")
    return [display, *writers]


class _Quiet(Callback):
    """Keeps notices from being warned of."""

    def on_notice(self, sentence: str) -> None:
        """Ignore it."""


class SuiteProgress:
    """Progress of `bench`, in cells."""

    def __init__(self, name: str, cells: int) -> None:
        self._name, self._cells = name, cells
        self._first: int | None = None
        self._display: Display

    def __enter__(self) -> Self:
        self._display = display_on(console.err)
        return self

    def __exit__(self, *_: object) -> None:
        self._display.close()

    def happened(self, event: Event) -> None:
        """Show which cells run, and print the one that finished or failed."""
        if event.result:
            seconds = clock(event.result.seconds)
            self._display.say(f"{event.name}: {event.result.main.accuracy} %, distilled in {seconds}")
        elif event.failure:
            self._display.say(f"{event.name} failed: {event.failure}", style="red")
        self._first = event.done if self._first is None else self._first
        running = f"{event.name} {event.stage}" if event.name in event.running else ", ".join(event.running)
        self._display.advance(self._name, event.done, self._cells, self._first, [running])
