"""The progress bar of a run, as the command line and notebooks show it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

from dsdistill.loggers.displays import Display, display_on
from dsdistill.runtime.callbacks import Callback
from dsdistill.runtime.estimate import RunEstimate


class ProgressBar(Callback):
    """Shows a run on stderr: what it is, notices, the estimate, and a bar with an ETA.

    In a notebook the bar is below the cell; where there is neither terminal nor notebook, a line comes now
    and then.

    >>> bar = dsdistill.ProgressBar()
    >>> options = {"dataset": "digits", "ipc": 1, "iterations": 3, "callbacks": [bar]}
    >>> summary = dsdistill.distill("digits.h5", **options)
    """

    LONG_READING = 200
    """Picture files, above which it is shown how many are read."""

    def __init__(self, verbose: bool = False, console: Console | None = None) -> None:
        """Prepare; nothing is shown yet.

        Args:
            verbose: show details too, such as what was decided by ``auto``.
            console: of rich, where to show it; default: stderr.
        """
        self._verbose = verbose
        self._console = console or Console(stderr=True, soft_wrap=True, markup=False, emoji=False)
        self._display: Display | None = None
        self._start: Any = None
        self._since = 0.0

    def on_notice(self, sentence: str) -> None:
        self._shown().say(sentence, style="yellow")

    def on_info(self, sentence: str) -> None:
        if self._verbose:
            self._shown().say(sentence)

    def on_read(self, what: str, done: int, total: int) -> None:
        if total > self.LONG_READING:
            self._shown().decode(what, done, total)

    def on_start(self, start: Any) -> None:
        self._start, self._since = start, time.monotonic()
        self._shown().begin()
        for line in start.describe():
            self._shown().say(line)

    def on_estimate(self, estimate: RunEstimate) -> None:
        self._shown().say(str(estimate))

    def on_iteration(self, entry: dict[str, Any], set: Callable[[], Any]) -> None:
        start, done = self._start, entry["iteration"]
        rate = (done - start.iteration) / max(1e-9, time.monotonic() - self._since)
        details = [f"loss {entry['loss']:.4g}", f"{rate:.2f} it/s"]
        if start.config.seconds:  # the bar counts seconds
            budget = math.ceil(start.config.seconds)
            seconds = min(budget, round(entry["seconds"]))
            self._shown().advance(f"{start.title}, iteration {done}, seconds", seconds, budget, 0, details)
        else:
            self._shown().advance(start.title, done, start.config.iterations, start.iteration, details)

    def on_epoch(self, entry: dict[str, Any]) -> None:
        start = self._start
        details = [f"expert {entry['expert']}", f"loss {entry['loss']:.4g}"]
        self._shown().advance(start.title, entry["done"], start.epochs, start.epochs_done, details)

    def on_progress(self, what: str, done: int, total: int) -> None:
        self._shown().advance(what, done, total, 0, [])

    def on_close(self) -> None:
        if self._display:
            self._display.close()
        self._display = None

    def _shown(self) -> Display:
        """Return the display; the first call makes it appear."""
        if self._display is None:
            self._display = display_on(self._console)
        return self._display
