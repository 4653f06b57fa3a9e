"""The steps of an evaluation, counted over all of its students."""

from __future__ import annotations

from dataclasses import dataclass

from dsdistill.evaluation.students import Tick
from dsdistill.runtime.callbacks import Observer


@dataclass
class StepCounter:
    """Adds up the steps of an evaluation, and reports each with those done before it.

    Attributes:
        done: steps before the current task.
    """

    observer: Observer
    total: int
    done: int = 0

    def tick(self, task: str) -> Tick:
        """Return a function to call with the steps done of a task; it raises as `check`."""

        def report(done: int, _: int) -> None:
            self.observer.on_progress(task, self.done + done, self.total)
            if self.done + done < self.total:
                self.check()

        return report

    def check(self) -> None:
        """Stop if a callback asks for it.

        Raises:
            StopRun: it does.
        """
        if self.observer.stop:
            raise self.observer.stop
