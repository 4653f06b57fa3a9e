"""Curves: those of one method against those of all others, and small ones of losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dsdistill.report.dots import Kind
from dsdistill.report.drawing import Drawing
from dsdistill.report.markup import escape
from dsdistill.report.scales import Scale, short

WIDTH, HEIGHT = 190, 136
LEFT, RIGHT, TOP, BOTTOM = 26, 184, 18, 116
"""Pixels where the axes of curves begin and end."""


@dataclass(frozen=True)
class Mark:
    """A point of a curve. Its bar reaches ``error`` up and down; ``title`` shows over it, ``href`` links."""

    x: float
    y: float
    error: float = 0.0
    title: str = ""
    href: str = ""

    @property
    def drawable(self) -> bool:
        """Whether it has a place on a logarithmic x axis."""
        return self.x > 0 and math.isfinite(self.x + self.y)


Curve = Sequence[Mark]


def draw(
    own: Sequence[Curve],
    others: Sequence[Curve],
    real: Sequence[Curve],
    scales: tuple[Scale, Scale],
    title: str,
    kind: Kind = Kind.DISTILLED,
) -> Drawing:
    """Draw the curves of one method in colour before those of all others in grey.

    Args:
        own: at least one point.
        real: curves of real images, dashed.
        scales: of x, logarithmic, and y, which charts side by side share.
        kind: what students of the method were trained on: distilled images, or real ones for their bytes.
    """
    x, y = scales
    points = [mark for curve in own for mark in curve]
    last = max(points, key=lambda mark: mark.x)
    parts = [_axes(x, y)]
    parts += [_path("others", others, x, y), _path("rule", real, x, y)]
    parts += [f'<g class="{kind.value}">{_path("line", own, x, y)}</g>']
    parts += [_point(mark, x, y, kind) for mark in points]
    at = min(x(last.x) + 4, x.end)
    parts.append(f'<text class="value" x="{at:.1f}" y="{y(last.y) - 8:.1f}">{last.y:.1f}</text>')
    about = "; ".join(mark.title for mark in points if mark.title)
    return Drawing(width=WIDTH, height=HEIGHT, inside="".join(parts), title=title, about=about, kind="curves")


def _axes(x: Scale, y: Scale) -> str:
    parts = []
    for value in y.ticks(3):
        at = y(value)
        parts.append(f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="side" x="{x.start - 5}" y="{at + 4:.1f}">{short(value)}</text>')
    for value in x.ticks(3):
        at = x(value)
        parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{y.start}" y2="{y.start + 4}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{y.start + 17}">{short(value)}</text>')
    parts.append(f'<line class="axis" x1="{x.start}" x2="{x.end}" y1="{y.start}" y2="{y.start}"/>')
    return "".join(parts)


def _path(kind: str, each: Sequence[Curve], x: Scale, y: Scale) -> str:
    """Draw curves as one path; a point alone becomes a dot by its round ends."""
    steps = []
    for curve in each:
        marks = sorted(curve, key=lambda mark: mark.x)
        line = "L".join(f"{x(mark.x):.1f},{y(mark.y):.1f}" for mark in marks)
        steps.append(f"M{line}{'h.01' if len(marks) == 1 else ''}")
    return f'<path class="{kind}" d="{"".join(steps)}"/>' if steps else ""


def _point(mark: Mark, x: Scale, y: Scale, kind: Kind) -> str:
    at, bar = x(mark.x), ""
    if mark.error:
        top, low = y(mark.y + mark.error), y(mark.y - mark.error)
        bar = f'<line class="bar" x1="{at:.2f}" x2="{at:.2f}" y1="{top:.2f}" y2="{low:.2f}"/>'
    dot = f'<circle class="mark" cx="{at:.2f}" cy="{y(mark.y):.2f}" r="3"/>'
    if kind is Kind.REAL_BYTES:
        dot = f'<rect class="mark" x="{at - 2.8:.2f}" y="{y(mark.y) - 2.8:.2f}" width="5.6" height="5.6"/>'
    inside = f"<title>{escape(mark.title)}</title>{bar}{dot}"
    if mark.href:
        return f'<a class="{kind.value}" href="{escape(mark.href)}">{inside}</a>'
    return f'<g class="{kind.value}">{inside}</g>'


def spark(values: Sequence[tuple[float, float]], title: str) -> Drawing | None:
    """Draw one curve (iteration, value) small, its first and last value below; None without two points."""
    points = [(at, value) for at, value in values if math.isfinite(value)]
    if len(points) < 2:
        return None
    width, height, top, bottom = WIDTH, 84, 8, 20
    x = Scale(points[0][0], points[-1][0], 2, width - 2)
    low, high = min(value for _, value in points), max(value for _, value in points)
    y = Scale(low, high if high > low else low + (abs(low) or 1), height - bottom, top)
    path = "L".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
    base, first, last = height - bottom + 4, points[0][1], points[-1][1]
    inside = (
        f'<line class="grid" x1="0" x2="{width}" y1="{base}" y2="{base}"/>'
        f'<path class="line" d="M{path}"/>'
        f'<text x="2" y="{height - 4}">{first:.4g}</text>'
        f'<text class="value" x="{width - 2}" y="{height - 4}">{last:.4g}</text>'
    )
    about = f"From {first:.4g} to {last:.4g}."
    return Drawing(width=width, height=height, inside=inside, title=title, about=about, kind="curves")


def thinned(values: Sequence[tuple[float, float]], count: int = 120) -> list[tuple[float, float]]:
    """Reduce a curve to at most ``count`` points, each the mean of its neighbours."""
    size = max(1, -(-len(values) // count))
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]
