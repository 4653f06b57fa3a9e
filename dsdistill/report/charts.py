"""Charts as SVG, drawn in currentColor and the page's variables, so that they follow its light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dsdistill.report.markup import escape
from dsdistill.text import plain

COLOURS = 8
"""Classes ``c0`` to ``c7`` of the style sheet; shapes tell series apart too."""
WIDTH, HEIGHT = 420, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 42
_LEGEND_ROW, _CHARACTER, _KEY = 18, 6.6, 24  # pixels; of a character about
_LEGEND_NAME = 48  # characters, which fit into a row


@dataclass(frozen=True)
class Mark:
    """A point. Its bar reaches ``error`` up and down; ``title`` shows over it, ``href`` is a link."""

    x: float
    y: float
    error: float = 0.0
    title: str = ""
    href: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one name; ``joined`` by lines, or not; ``colour`` picks colour and shape."""

    name: str
    marks: tuple[Mark, ...]
    colour: int
    joined: bool = True


@dataclass(frozen=True)
class Rule:
    """A dashed line across; of several with one name the first is labelled. ``title`` is shown over it."""

    name: str
    y: float
    title: str = ""


@dataclass(frozen=True)
class _Scale:
    """From data to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        at = math.log(max(value, self.low)) if self.log else value
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    def ticks(self) -> list[float]:
        """Return round values inside, some three to seven."""
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)


def plot(
    series: Sequence[Series], x_label: str, y_label: str, rules: Sequence[Rule] = (), about: str = ""
) -> str:
    """Draw series over a logarithmic x axis; x values that are not positive are left out.

    Args:
        rules: values to compare with.
        about: what the chart shows, for those who cannot see it.

    Returns:
        an ``<svg>`` of class ``chart``; empty where there is nothing to draw.
    """
    drawable = [
        (each, [mark for mark in each.marks if mark.x > 0 and math.isfinite(mark.x + mark.y)])
        for each in series
    ]
    drawable = [(each, marks) for each, marks in drawable if marks]
    if not drawable:
        return ""
    every = [mark for _, marks in drawable for mark in marks]
    x = _x_scale([mark.x for mark in every])
    ends = [mark.y + sign * mark.error for mark in every for sign in (-1, 1)] + [rule.y for rule in rules]
    y = _y_scale(ends)
    drawn = [_axes(x, y, x_label, y_label)]
    drawn += [
        _rule(rule, x, y, rule.name not in [one.name for one in rules[:at]]) for at, rule in enumerate(rules)
    ]
    drawn += [_series(each, marks, x, y) for each, marks in drawable]
    names = {(each.name, each.colour % COLOURS, each.colour // COLOURS): None for each, _ in drawable}
    legend, rows = _legend(list(names))
    height = HEIGHT + rows * _LEGEND_ROW
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="group" aria-label="{escape(about)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(drawn)}{legend}</svg>'
    )


def spark(values: Sequence[tuple[float, float]], colour: int, about: str) -> str:
    """Draw one curve (iteration, value) small, its first and last value below; empty without two points."""
    points = [(at, value) for at, value in values if math.isfinite(value)]
    if len(points) < 2:
        return ""
    width, height, top, bottom = 220, 92, 10, 20
    x = _Scale(points[0][0], points[-1][0], 2, width - 2)
    low, high = min(value for _, value in points), max(value for _, value in points)
    y = _Scale(low, high if high > low else low + (abs(low) or 1), height - bottom, top)
    path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
    base = height - bottom + 4
    return (
        f'<svg class="chart spark" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(about)}" '
        f'xmlns="http://www.w3.org/2000/svg"><line class="grid" x1="0" x2="{width}" y1="{base}" y2="{base}"/>'
        f'<polyline class="c{colour % COLOURS} line" points="{path}"/>'
        f'<text x="2" y="{height - 4}">{points[0][1]:.4g}</text>'
        f'<text x="{width - 2}" y="{height - 4}" text-anchor="end">{points[-1][1]:.4g}</text></svg>'
    )


def standalone(svg: str, style: str) -> str:
    """Return a chart as a file of its own, with a style sheet inside."""
    head, mark, rest = svg.partition(">")
    return f"{head}{mark}<style>{style}</style>{rest}\n"


def thinned(values: Sequence[tuple[float, float]], count: int = 120) -> list[tuple[float, float]]:
    """Reduce a curve to at most ``count`` points, each the mean of its neighbours."""
    size = max(1, -(-len(values) // count))
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def short(value: float) -> str:
    """Write an axis value: 0.5, 20, 3k, 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _x_scale(values: Sequence[float]) -> _Scale:
    low, high = min(values), max(values)
    room = max(1.25, (high / low) ** 0.06)
    if high / low < 3:  # else there may be no round value inside
        room = max(room, math.sqrt(5 * low / high))
    return _Scale(low / room, high * room, _LEFT, WIDTH - _RIGHT, log=True)


def _y_scale(values: Sequence[float]) -> _Scale:
    low, high = min(values), max(values)
    room = max(0.06 * (high - low), 0.5)
    return _Scale(low - room, high + room, HEIGHT - _BOTTOM, _TOP)


def _ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 5
    size = 10 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= raw)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        inside = [round(value, 10) for value in ticks if low <= value <= high]
        if len(inside) <= 7:
            return inside
    return inside[:: -(-len(inside) // 6)]


def _axes(x: _Scale, y: _Scale, x_label: str, y_label: str) -> str:
    left, right, low = x.start, x.end, y.start
    parts = []
    for value in y.ticks():
        at = y(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{short(value)}</text>')
    for value in x.ticks():
        at = x(value)
        parts.append(f'<line class="tick" x1="{at:.1f}" x2="{at:.1f}" y1="{low}" y2="{low + 4}"/>')
        parts.append(f'<text x="{at:.1f}" y="{low + 17}" text-anchor="middle">{short(value)}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{low}" y2="{low}"/>')
    middle = (left + right) / 2
    parts.append(f'<text x="{middle}" y="{low + 35}" text-anchor="middle">{escape(x_label)}</text>')
    half = (y.start + y.end) / 2
    turned = (
        f'<text transform="translate(12 {half}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    return "".join([*parts, turned])


def _rule(rule: Rule, x: _Scale, y: _Scale, labelled: bool) -> str:
    at = y(rule.y)
    above = at - 5 if at - 5 > _TOP + 8 else at + 13
    return (
        f'<line class="rule" x1="{x.start}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}">'
        f"<title>{escape(rule.title or rule.name)}</title></line>"
        + f'<text class="quiet" x="{x.end - 2}" y="{above:.1f}" text-anchor="end">{escape(rule.name)}</text>'
        * labelled
    )


def _series(series: Series, marks: Sequence[Mark], x: _Scale, y: _Scale) -> str:
    ordered = sorted(marks, key=lambda mark: mark.x)
    parts = [f'<g class="c{series.colour % COLOURS}">']
    if series.joined and len(ordered) > 1:
        path = " ".join(f"{x(mark.x):.1f},{y(mark.y):.1f}" for mark in ordered)
        parts.append(f'<polyline class="line" points="{path}"/>')
    for mark in ordered:
        bar = ""
        if mark.error:
            at, top, low = x(mark.x), y(mark.y + mark.error), y(mark.y - mark.error)
            bar = f'<line class="bar" x1="{at:.1f}" x2="{at:.1f}" y1="{top:.1f}" y2="{low:.1f}"/>'
        title = f"<title>{escape(mark.title)}</title>" if mark.title else ""
        shape = f"<g>{title}{bar}{_shape(series.colour, x(mark.x), y(mark.y))}</g>"
        parts.append(f'<a href="{escape(mark.href)}">{shape}</a>' if mark.href else shape)
    return "".join([*parts, "</g>"])


def _shape(colour: int, x: float, y: float) -> str:
    kind = (colour + colour // COLOURS) % 4
    if kind == 0:
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    outline = {
        1: ((-3.6, -3.6), (3.6, -3.6), (3.6, 3.6), (-3.6, 3.6)),
        2: ((0, -5), (4.6, 3.6), (-4.6, 3.6)),
        3: ((0, -5.2), (5.2, 0), (0, 5.2), (-5.2, 0)),
    }[kind]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in outline)
    return f'<polygon class="mark" points="{points}"/>'


def _legend(names: Sequence[tuple[str, int, int]]) -> tuple[str, int]:
    """Lay the names of series out below the chart, in as many rows as they need."""
    parts, x, row = [], float(_LEFT), 0
    for name, colour, lap in names:
        name = plain(name, _LEGEND_NAME)
        width = _KEY + _CHARACTER * len(name) + 8
        if x > _LEFT and x + width > WIDTH:
            x, row = float(_LEFT), row + 1
        y = HEIGHT + row * _LEGEND_ROW + 8
        shape = _shape(colour + lap * COLOURS, x + 6, y)
        parts.append(
            f'<g class="c{colour}">{shape}</g><text x="{x + 16:.1f}" y="{y + 4}">{escape(name)}</text>'
        )
        x += width
    return "".join(parts), row + 1
