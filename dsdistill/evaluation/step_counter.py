"""The steps of an evaluation, counted over all of its students."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from dsdistill.evaluation.students import Tick
from dsdistill.runtime.board import Board, Tally
from dsdistill.runtime.callbacks import Observer, StopRun


@dataclass
class StepCounter:
    """Adds up the steps of an evaluation, and reports each with those done before it, in all processes.

    Attributes:
        done: steps of this process before the current task.
        board: of the processes that share the evaluation.
    """

    observer: Observer
    total: int
    done: int = 0
    board: Board = field(default_factory=Board)

    @cached_property
    def _tally(self) -> Tally:
        return Tally(self.board)

    def tick(self, task: str) -> Tick:
        """Return a function to call with the steps done of a task; it raises as `check`."""

        def report(done: int, _: int) -> None:
            everywhere = self._tally.total(self.done + done)
            self.observer.on_progress(task, everywhere, self.total)
            if everywhere < self.total:
                self.check()

        return report

    def check(self) -> None:
        """Stop if a callback asks for it, or another process has stopped.

        Raises:
            StopRun: it does, or has.
        """
        if self.observer.stop:
            raise self.observer.stop
        if self.board.is_stopped:
            raise StopRun("another process has stopped")
