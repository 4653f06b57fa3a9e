"""Dot plots: a row for each method, its mean and its deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from dsdistill.report.drawing import XMLNS, Drawing
from dsdistill.report.markup import escape
from dsdistill.report.scales import Scale, linear, short
from dsdistill.text import plain

WIDTH = 560
"""Pixels, in a file of its own."""
_ROW, _BOTTOM = 22, 36
_CHARACTER = 6.5  # pixels, about
_NAME = 27  # characters of a row's name
_GAP = 14  # pixels between name, plot and figure
_PERCENT = 100.0


class Kind(Enum):
    """What students were trained on; the value is a class of the style sheet."""

    DISTILLED = "distilled"
    REAL = "real"
    REAL_BYTES = "bytes"
    FULL = "full"
    CONTROL = "control"


@dataclass(frozen=True)
class Dot:
    """A row of a dot plot: a mean, a bar of ``std`` to both sides, and ``text``, the two as a table has them.

    Attributes:
        href: where the row leads. best: whether it stands out.
    """

    name: str
    mean: float
    std: float
    text: str
    kind: Kind
    href: str = ""
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class DotPlot(Drawing):
    """A plot between names and figures, which keep their size where there is more room for it.

    Attributes:
        names, values: what is at the left and at the right of it. left, right: how many pixels they take.
    """

    names: str
    values: str
    left: int
    right: int

    @property
    def html(self) -> str:
        """The drawing on a page: three beside one another."""
        size = f'class="chart" height="{self.height}"'
        names = f'<svg {size} width="{self.left}" {XMLNS}>{self.names}</svg>'
        plot = f'<svg class="chart plot" height="{self.height}" {XMLNS}>{self._words}{self.inside}</svg>'
        values = f'<svg {size} width="{self.right}" {XMLNS}>{self.values}</svg>'
        return f'<div class="{self.kind}" role="group">{names}{plot}{values}</div>'

    def at(self, x: float, y: float) -> str:
        """Return the drawing at a place inside an ``<svg>``."""
        plot = f'<svg x="{self.left}" width="{self.width - self.left - self.right}" overflow="visible">'
        values = f'<svg x="{self.width - self.right}" width="{self.right}">{self.values}</svg>'
        place = f' x="{x}" y="{y}" width="{self.width}" height="{self.height}"'
        return self._svg(place, f"{self.names}{plot}{self.inside}</svg>{values}")


@dataclass(frozen=True)
class Frame:
    """What plots side by side share: the ends of their axis, and the pixels for names and for figures."""

    low: float
    high: float
    left: int
    right: int


def frame(dots: Sequence[Dot]) -> Frame:
    """Return a frame with room for some dots, and a little more."""
    ends = [dot.mean + sign * dot.std for dot in dots for sign in (-1, 1)]
    scale = linear(ends, 0, 1, _PERCENT)
    name, text = (max(len(each) for each in texts) for texts in (map(_name, dots), (d.text for d in dots)))
    return Frame(scale.low, scale.high, *(round(_CHARACTER * count) + _GAP for count in (name, text)))


def draw(dots: Sequence[Dot], within: Frame, reference: float | None, title: str, about: str) -> DotPlot:
    """Draw a row for each dot, in the order they have.

    Args:
        reference: a value that a dashed line goes through.
    """
    x, low = Scale(within.low, within.high, 0, 100), _ROW * len(dots)
    plot = [_axis(x, low)]
    if reference is not None:
        at = f"{x(reference):.3f}%"
        plot.append(f'<line class="rule" x1="{at}" x2="{at}" y1="0" y2="{low}"/>')
    middles = [_ROW * (row + 0.5) for row in range(len(dots))]
    plot += [_dot(dot, x, y) for dot, y in zip(dots, middles, strict=True)]
    names = [_text(dot, "name", _name(dot), y) for dot, y in zip(dots, middles, strict=True)]
    values = [_text(dot, "value", dot.text, y) for dot, y in zip(dots, middles, strict=True)]
    return DotPlot(
        width=WIDTH,
        height=low + _BOTTOM,
        inside="".join(plot),
        title=title,
        about=about,
        kind="dots",
        names="".join(names),
        values="".join(values),
        left=within.left,
        right=within.right,
    )


def _name(dot: Dot) -> str:
    return plain(dot.name, _NAME)


def _axis(x: Scale, low: float) -> str:
    parts = [f'<line class="axis" x1="0" x2="100%" y1="{low}" y2="{low}"/>']
    for value in x.ticks(4):
        at = f"{x(value):.3f}%"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="0" y2="{low}"/>')
        parts.append(f'<text class="tick" x="{at}" y="{low + 15}">{short(value)}</text>')
    return "".join([*parts, f'<text class="label" x="50%" y="{low + 31}">accuracy %</text>'])


def _dot(dot: Dot, x: Scale, y: float) -> str:
    start, end = (f"{x(dot.mean + sign * dot.std):.3f}%" for sign in (-1, 1))
    bar = f'<line class="bar" x1="{start}" x2="{end}" y1="{y}" y2="{y}"/>' if dot.std else ""
    lead = f'<line class="lead" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
    mark = f'<svg x="{x(dot.mean):.3f}%" y="{y}" overflow="visible">{shape(dot.kind)}</svg>'
    return f'<g class="dot {dot.kind.value}">{lead}{_linked(dot, f"{bar}{mark}", tabindex=-1)}</g>'


def _text(dot: Dot, kind: str, text: str, y: float) -> str:
    """Return a row's name or figure; one tabulator stop per row is enough."""
    x = "0" if kind == "name" else "100%"
    inside = f'<text class="{kind}" x="{x}" y="{y + 4}">{escape(text)}</text>'
    row = f"{dot.kind.value}{' best' if dot.best else ''}"
    return f'<g class="{row}">{_linked(dot, inside, tabindex=0 if kind == "name" else -1)}</g>'


def _linked(dot: Dot, inside: str, tabindex: int) -> str:
    title = f"<title>{escape(dot.name)}: {escape(dot.text)} %</title>"
    if not dot.href:
        return f"{title}{inside}"
    return f'<a href="{escape(dot.href)}" tabindex="{tabindex}">{title}{inside}</a>'


def shape(kind: Kind) -> str:
    """Draw a dot around the origin.

    A distilled set is a disc. Real images are a ring, for some bytes a square, and all of them a diamond.
    A control is a triangle.
    """
    match kind:
        case Kind.DISTILLED:
            return '<circle class="mark" r="4.2"/>'
        case Kind.REAL:
            return '<circle class="mark" r="3.8"/>'
        case Kind.REAL_BYTES:
            return '<rect class="mark" x="-3.7" y="-3.7" width="7.4" height="7.4"/>'
        case Kind.FULL:
            return '<path class="mark" d="M0-5.2L5.2 0L0 5.2L-5.2 0Z"/>'
        case Kind.CONTROL:
            return '<path class="mark" d="M0-4.8L4.6 3.4L-4.6 3.4Z"/>'


def key(kinds: Sequence[Kind]) -> str:
    """Explain the shapes of dot plots, those of ``kinds``, as a list in HTML."""
    words = {
        Kind.DISTILLED: "distilled images",
        Kind.REAL: "as many real images",
        Kind.REAL_BYTES: "real images for so many bytes",
        Kind.FULL: "the full training set",
        Kind.CONTROL: "other images with the same labels, and the teacher",
    }
    items = "".join(
        f'<li><svg class="chart {kind.value}" viewBox="-7 -7 14 14" aria-hidden="true">'
        f"{shape(kind)}</svg> {text}</li>"
        for kind, text in words.items()
        if kind in kinds
    )
    return f'<ul class="key">{items}</ul>'
