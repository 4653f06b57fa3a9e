"""The loop over the blocks of views: progress, what is kept for a resumed run, and stops."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NoReturn

from dsdistill.errors import UserError
from dsdistill.labelling.answering import ViewAnswers
from dsdistill.labelling.parts import LabelParts
from dsdistill.runtime.callbacks import Observer
from dsdistill.runtime.signals import Interrupted, deferred_signals
from dsdistill.synthetic.views import Views

_EVERY = 10.0
"""Seconds of work that a kill loses at most, beside an epoch, or several of few images."""


class ViewRun:
    """Answers to all views of a set, from where an interrupted run has stopped."""

    def __init__(self, answers: ViewAnswers, observer: Observer, parts: LabelParts | None) -> None:
        """Read what an interrupted run has left.

        Args:
            answers: to the views.
            observer: the callbacks.
            parts: where finished epochs are kept; None for nowhere.
        """
        self._answers, self._observer, self._parts = answers, observer, parts
        self._epochs = answers.draws.config.views
        self._finished: list[Views] = []
        self._unsaved = 0  # of the finished
        self._epoch = 0  # that comes next
        self._saved = 0  # the epoch up to which all is saved
        if parts is not None:
            self._finished, self._epoch = parts.read(observer.on_notice)
            self._saved = self._epoch

    @property
    def done(self) -> int:
        """Views that are finished."""
        return self._answers.views_before(self._epoch)

    def views(self) -> Views:
        """Return all views, once they are answered to.

        Raises:
            UserError: a callback stopped it.
            Interrupted: a signal did; every finished epoch is kept.
        """
        with deferred_signals() as signals:
            since = time.monotonic()
            for epochs in self._answers.blocks(self._epoch):
                views = self._answers.block(epochs, self._tick(signals))
                self._finished += [views] if views is not None else []
                self._unsaved += views is not None
                self._epoch = epochs.stop
                if self._epoch < self._epochs and time.monotonic() - since > _EVERY:
                    self._save()
                    since = time.monotonic()
            if signals:
                self._save()
        return Views.cat(self._finished)

    def _tick(self, signals: list[Interrupted]) -> Callable[[int], None]:
        """Return what is told how many views of the next block are done; it stops if that is asked for."""
        before, total = self.done, self._answers.total

        def tick(done: int) -> None:
            self._observer.on_progress("labelling", before + done, total)
            if before + done < total and (signals or self._observer.stop):
                self._stop(signals)

        return tick

    def _stop(self, signals: list[Interrupted]) -> NoReturn:
        """Keep the finished epochs, and stop."""
        self._save()
        if signals:
            raise signals[0]
        kept = "resume=True goes on" if self._parts is not None else "nothing is kept"
        done = f"{self._epoch} of {self._epochs} epochs of views"
        raise UserError(f"stopped by a callback with {done}: {self._observer.stop}; {kept}")

    def _save(self) -> None:
        """Keep the finished epochs that are not kept yet."""
        if self._parts is not None and self._unsaved:
            self._parts.save(range(self._saved, self._epoch), Views.cat(self._finished[-self._unsaved :]))
            self._saved, self._unsaved = self._epoch, 0
