"""The pace of a run, measured while it runs: what a step takes, with compiling and warming up aside."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

_OUTLIER = 3.0  # a step that takes so many times the median compiled something, or another program ran
_FEWEST, _ENOUGH = 3, 16
"""Measurements, the first of which warms up: the pace is known after the fewest if they took enough seconds,
and after enough of them in any case."""


@dataclass(frozen=True)
class StepPace:
    """What a step takes.

    Attributes:
        step: seconds, from now on.
        warm_up: seconds that the measured steps took above that.
        share: of a step that was measured.
    """

    step: float
    warm_up: float
    share: float = 1.0


@dataclass
class PaceMeter:
    """The seconds of steps, measured one by one or several at a time.

    >>> pace = PaceMeter()
    >>> for seconds in (60.0, 2.0, 2.0):
    ...     pace.add(1, seconds)
    >>> pace.is_known, pace.step, pace.warm_up
    (True, 2.0, 58.0)
    """

    enough_seconds: float = 2.0
    """Of all measurements but the first, for the pace to be known before there are many of them."""
    _steps: list[int] = field(default_factory=list)
    _seconds: list[float] = field(default_factory=list)

    def add(self, steps: int, seconds: float) -> None:
        """Add a measurement: so many steps took so many seconds."""
        self._steps.append(steps)
        self._seconds.append(seconds)

    @property
    def is_new(self) -> bool:
        """Whether the next steps may still compile something, so that they are better timed one by one."""
        return len(self._steps) < 2

    @property
    def is_known(self) -> bool:
        """Whether there are enough measurements."""
        count = len(self._steps)
        return count >= _ENOUGH or (count >= _FEWEST and sum(self._seconds[1:]) >= self.enough_seconds)

    @property
    def step(self) -> float:
        """Seconds of a step from now on; there must be a measurement."""
        first = 1 if len(self._steps) > 1 else 0
        pairs = zip(self._seconds[first:], self._steps[first:], strict=True)
        return typical([seconds / steps for seconds, steps in pairs])

    @property
    def pace(self) -> StepPace:
        """What a step takes; there must be a measurement."""
        return StepPace(self.step, self.warm_up)

    @property
    def warm_up(self) -> float:
        """Seconds that the measured steps took above this pace: compiling is most of it."""
        return max(0.0, sum(self._seconds) - sum(self._steps) * self.step)


def typical(times: Sequence[float]) -> float:
    """Return the mean of seconds without those far above the median: operators differ, compiling stands out.

    >>> typical([1.0, 2.0, 1.5, 4000.0])
    1.5
    """
    limit = _OUTLIER * statistics.median(times)
    return statistics.fmean(seconds for seconds in times if seconds <= limit)
