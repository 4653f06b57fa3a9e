"""Where progress is shown: a bar in a terminal or a notebook, a line now and then elsewhere."""

from __future__ import annotations

import html
import time
from abc import ABC, abstractmethod
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dsdistill.text import clock, plain

_SENTENCE = 2000  # characters


class Display(ABC):
    """Shows how far a run is."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, sentence: str, style: str = "") -> None:
        """Show a sentence, above the bar if there is one."""
        self._console.print(plain(sentence, _SENTENCE), style=style, highlight=False)

    def begin(self) -> None:  # noqa: B027
        """Take what advances from now on for other work, of a pace of its own."""

    @abstractmethod
    def advance(self, title: str, done: int, total: int, first: int, details: list[str]) -> None:
        """Show that ``done`` of ``total`` are done, of which an earlier run did the first ones.

        Args:
            title: of the work.
            details: such as the loss.
        """

    @abstractmethod
    def decode(self, what: str, done: int, total: int) -> None:
        """Show how far a long list of picture files is read, or many megabytes, until it is done."""

    def close(self) -> None:  # noqa: B027
        """Leave what is shown as it is."""


class Bar(Display):
    """A bar in a terminal, with an ETA. It hides the cursor from the first advance until it is closed."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        columns = [TextColumn("{task.description}", markup=False), BarColumn()]
        columns += [TextColumn("{task.completed:.0f}/{task.total:.0f}")]
        columns += [TextColumn("{task.fields[details]}", markup=False)]
        times = (TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(elapsed_when_finished=False))
        self._progress = Progress(*columns, *times, console=console)
        self._task: TaskID | None = None
        self._decoding: TaskID | None = None

    def begin(self) -> None:
        if self._task is not None:
            self._progress.stop_task(self._task)
        self._task = None

    def advance(self, title: str, done: int, total: int, first: int, details: list[str]) -> None:
        self._progress.start()
        title, words = plain(title), plain(" ".join(details))
        if self._task is None:
            self._task = self._progress.add_task(title, total=total, completed=first, details=words)
            if first:
                self._progress.reset(self._task, completed=first, start=True)
        self._progress.update(self._task, description=title, completed=done, total=total, details=words)

    def decode(self, what: str, done: int, total: int) -> None:
        self._progress.start()
        if self._decoding is None:
            self._decoding = self._progress.add_task(plain(what), total=total, details="")
        self._progress.update(self._decoding, description=plain(what), completed=done, total=total)
        if done == total:
            self._end_decoding()

    def close(self) -> None:
        self._end_decoding()
        if self._progress.live.is_started:
            self._progress.stop()

    def _end_decoding(self) -> None:
        if self._decoding is not None:
            self._progress.remove_task(self._decoding)
            self._decoding = None


class Remaining:
    """What is left of some work, in time, by what was done since the first look at it."""

    def __init__(self, done: int) -> None:
        self._since, self._first = time.monotonic(), done

    def eta(self, done: int, total: int) -> str:
        """Return the time that is left; empty while there is no pace, and at the end."""
        if not self._first < done < total:
            return ""
        seconds = (time.monotonic() - self._since) / (done - self._first) * (total - done)
        return f"ETA {clock(seconds)}"


class Lines(Display):
    """A line now and then, where there is no terminal."""

    EVERY = 30.0  # seconds

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._last_draw = -self.EVERY
        self._pace: Remaining | None = None
        self._decoding: dict[str, Remaining] = {}

    def begin(self) -> None:
        self._last_draw, self._pace = -self.EVERY, None

    def advance(self, title: str, done: int, total: int, first: int, details: list[str]) -> None:
        self._pace = self._pace or Remaining(done)
        now = time.monotonic()
        if now - self._last_draw >= self.EVERY or done == total:
            self._last_draw = now
            words = [title, f"{done}/{total}", *details, self._pace.eta(done, total)]
            self.say(" ".join(filter(None, words)))

    def decode(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what not in self._decoding:
            self._decoding = {what: Remaining(done)}
            self._last_draw = now  # what is read soon needs no line
        if now - self._last_draw >= self.EVERY:
            self._last_draw = now
            self.say(" ".join(filter(None, [what, f"{done}/{total}", self._decoding[what].eta(done, total)])))


class NotebookBar(Display):
    """A bar below the cell of a notebook, which is redrawn in place; it needs no widgets."""

    EVERY = 0.2  # seconds

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._handle: Any = None
        self._last_draw = -self.EVERY
        self._pace: Remaining | None = None

    def say(self, sentence: str, style: str = "") -> None:
        print(plain(sentence, _SENTENCE))

    def begin(self) -> None:
        self._last_draw, self._pace = -self.EVERY, None

    def advance(self, title: str, done: int, total: int, first: int, details: list[str]) -> None:
        self._pace = self._pace or Remaining(done)
        now = time.monotonic()
        if now - self._last_draw < self.EVERY and done < total:
            return
        self._last_draw = now
        words = [title, f"{done}/{total}", *details, self._pace.eta(done, total)]
        self._draw(done, total, " ".join(filter(None, words)))

    def decode(self, what: str, done: int, total: int) -> None:
        self._draw(done, total, f"{what} {done}/{total}")

    def _draw(self, done: int, total: int, words: str) -> None:
        from IPython.display import HTML, display

        bar = f'<progress value="{done}" max="{total}" style="width:20em"></progress>'
        content = HTML(f"<div>{bar} {html.escape(plain(words))}</div>")
        if self._handle is None:
            self._handle = display(content, display_id=True)
        else:
            self._handle.update(content)


def display_on(console: Console) -> Display:
    """Return the display that suits a console."""
    if console.is_jupyter:
        return NotebookBar(console)
    return Bar(console) if console.is_terminal else Lines(console)
