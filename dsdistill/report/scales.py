"""Scales from data to pixels, and the round values on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """From values between ``low`` and ``high`` to pixels between ``start`` and ``end``.

    >>> Scale(0, 100, 20, 220)(50), Scale(1, 100, 0, 200, log=True)(10)
    (120.0, 100.0)
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        at = math.log(max(value, self.low)) if self.log else value
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    def ticks(self, most: int = 7) -> list[float]:
        """Return round values inside, at least one."""
        return _log_ticks(self.low, self.high, most) if self.log else _ticks(self.low, self.high, most)


def linear(values: Sequence[float], start: float, end: float, ceiling: float = math.inf) -> Scale:
    """Return a scale with a little room around the values; none above ``ceiling``, if they allow."""
    low, high = min(values), max(values)
    room = max(0.05 * (high - low), 0.5)
    return Scale(low - room, max(high, min(high + room, ceiling)), start, end)


def logarithmic(values: Sequence[float], start: float, end: float) -> Scale:
    """Return a logarithmic scale with a little room around positive values."""
    low, high = min(values), max(values)
    room = max(1.25, (high / low) ** 0.06)
    if high / low < 3:  # else there may be no round value inside
        room = max(room, math.sqrt(5 * low / high))
    return Scale(low / room, high * room, start, end, log=True)


def short(value: float) -> str:
    """Write an axis value: 0.5, 20, 3k, 1.5M.

    >>> short(0.5), short(3000)
    ('0.5', '3k')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _ticks(low: float, high: float, most: int) -> list[float]:
    size = 10 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20, 50):
        step = factor * size
        first, last = math.ceil(low / step), math.floor(high / step)
        if last - first < most:
            break
    return [round(number * step, 10) for number in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        inside = [round(value, 10) for value in ticks if low <= value <= high]
        if len(inside) <= most:
            return inside
    return inside[:: -(-len(inside) // most)]
