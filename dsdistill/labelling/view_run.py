"""The loop over the blocks of views: progress, what is kept for a resumed run, and stops.

Where several processes share the blocks, each keeps its own, and the first reads what the others have kept.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import NoReturn

from dsdistill.errors import UserError
from dsdistill.labelling.answering import ViewAnswers
from dsdistill.labelling.parts import LabelParts
from dsdistill.runtime.board import Tally
from dsdistill.runtime.callbacks import Observer, StopRun
from dsdistill.runtime.ranks import ALONE, Ranks
from dsdistill.runtime.signals import Interrupted, deferred_signals
from dsdistill.synthetic.views import Views

_EVERY = 10.0
"""Seconds of work that a kill loses at most, beside an epoch, or several of few images."""


class ViewRun:
    """Answers to all views of a set that an interrupted run has not answered to.

    Attributes:
        done: views that were finished before.
        share: of the views that are left, that of this process.
    """

    def __init__(
        self, answers: ViewAnswers, observer: Observer, parts: LabelParts | None, ranks: Ranks = ALONE
    ) -> None:
        """Read what an interrupted run has left.

        Args:
            answers: to the views.
            observer: the callbacks.
            parts: where finished epochs are kept; None for nowhere, which one process alone can do.
            ranks: the processes that share the blocks.
        """
        self._answers, self._observer, self._parts, self._ranks = answers, observer, parts, ranks
        self._board = ranks.board()
        self._tally = Tally(self._board)
        self._finished: list[tuple[range, Views]] = []
        if parts is not None and ranks.is_first:
            self._finished = parts.read(observer.on_notice)
        self._unsaved = 0  # of the finished
        spans = [[epochs.start, epochs.stop] for epochs, _ in self._finished]
        there = {epoch for ends in json.loads(ranks.of_first(json.dumps(spans))) for epoch in range(*ends)}
        missing = [block for block in answers.blocks() if not there.issuperset(block)]
        self._own = missing[ranks.part(len(missing))]
        self._epochs_left = sum(map(len, missing))
        left = self._views_of(missing)
        self.done = answers.total - left
        self.share = self._views_of(self._own) / left if left else 1.0

    def views(self) -> Views | None:
        """Return all views, once they are answered to; None in another process than the first.

        Raises:
            UserError: a callback stopped it.
            Interrupted: a signal did; every finished epoch is kept.
            RankLost: another process has ended.
        """
        with deferred_signals() as signals, contextlib.suppress(StopRun), self._board.stops_others():
            self._answer(signals)
            if signals or self._ranks.count > 1:
                self._save()
        self._ranks.wait()  # until all have answered
        if not self._ranks.is_first:
            return None
        if self._ranks.count > 1 and self._parts is not None:
            self._finished = self._parts.read(self._observer.on_notice)
        views = [views for _, views in sorted(self._finished, key=lambda each: each[0].start)]
        if sum(len(each.rows) for each in views) != self._answers.total:
            raise UserError("the labels that were kept are not whole: go on with --resume")
        return Views.cat(views)

    def _answer(self, signals: list[Interrupted]) -> None:
        """Answer to the blocks of this process."""
        since, answered = time.monotonic(), 0
        for place, epochs in enumerate(self._own):
            if self._unsaved and self._views_of([range(self._finished[-1][0].stop, epochs.start)]):
                self._save()  # a file holds epochs that follow one another
            self._finished.append((epochs, self._answers.block(epochs, self._tick(answered, signals))))
            self._unsaved += 1
            self._epochs_left -= len(epochs)
            answered += self._answers.views_of(epochs)
            if place + 1 < len(self._own) and time.monotonic() - since > _EVERY:
                self._save()
                since = time.monotonic()

    def _views_of(self, blocks: list[range]) -> int:
        return sum(map(self._answers.views_of, blocks))

    def _tick(self, before: int, signals: list[Interrupted]) -> Callable[[int], None]:
        """Return what is told how many views of the next block are done; it stops if that is asked for.

        Args:
            before: views that this process has answered to.
        """
        total = self._answers.total

        def tick(done: int) -> None:
            everywhere = self.done + self._tally.total(before + done)
            self._observer.on_progress("labelling", everywhere, total)
            stopping = signals or self._observer.stop or self._board.is_stopped
            if everywhere < total and stopping:
                self._stop(signals)

        return tick

    def _stop(self, signals: list[Interrupted]) -> NoReturn:
        """Keep the finished epochs, and stop."""
        self._save()
        if signals:
            raise signals[0]
        if not self._observer.stop:
            raise StopRun("another process has stopped")
        remark = "resume=True goes on" if self._parts is not None else "nothing is kept"
        epochs = self._answers.draws.config.views
        done = f"{epochs - self._epochs_left} of {epochs} epochs of views"
        raise UserError(f"stopped by a callback with {done}: {self._observer.stop}; {remark}")

    def _save(self) -> None:
        """Keep the finished epochs that are not kept yet."""
        if self._parts is not None and self._unsaved:
            new = self._finished[-self._unsaved :]
            epochs = range(new[0][0].start, new[-1][0].stop)
            self._parts.save(epochs, Views.cat([views for _, views in new]))
            self._unsaved = 0
