"""Drawings as SVG, on a page or in a file of their own.

They are drawn in classes of the page's style sheet, so that they follow its light and dark. What a shape says
is never said by colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dsdistill.report.markup import LONG, escape

_WIDEST = 1300  # pixels of a sheet
_HEAD, _SPACE = 24, 24  # pixels above a drawing, for its name, and between drawings


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What is inside an ``<svg>``, and its size in pixels.

    Attributes:
        title, about: its name and what it shows, for those who cannot see it.
        kind: a class of the style sheet.
    """

    width: int
    height: int
    inside: str
    title: str
    about: str = ""
    kind: str = ""

    @property
    def html(self) -> str:
        """The drawing on a page, as wide as there is room."""
        return self._svg("", self.inside)

    def at(self, x: float, y: float) -> str:
        """Return the drawing at a place inside an ``<svg>``."""
        return self._svg(f' x="{x}" y="{y}" width="{self.width}" height="{self.height}"', self.inside)

    def _svg(self, place: str, inside: str) -> str:
        box = f'viewBox="0 0 {self.width} {self.height}"'
        kind = f'class="{f"chart {self.kind}".strip()}"'
        return f'<svg {kind} {box}{place} role="group" {XMLNS}>{self._words}{inside}</svg>'

    @property
    def _words(self) -> str:
        return f"<title>{escape(self.title)}</title><desc>{escape(self.about, LONG)}</desc>"


XMLNS = 'xmlns="http://www.w3.org/2000/svg"'


def sheet(title: str, drawings: Sequence[tuple[str, Drawing]], style: str) -> str:
    """Return named drawings as one SVG with its style sheet, as a file of its own, in rows."""
    width = max(drawing.width for _, drawing in drawings)
    columns = max(1, min(len(drawings), _WIDEST // (width + _SPACE)))
    parts, top = [f'<text class="title" x="0" y="18">{escape(title)}</text>'], 2 * _HEAD
    for start in range(0, len(drawings), columns):
        row = drawings[start : start + columns]
        for column, (name, drawing) in enumerate(row):
            left = column * (width + _SPACE)
            parts.append(f'<text class="title" x="{left}" y="{top}">{escape(name, 60)}</text>')
            parts.append(drawing.at(left, top + 8))
        top += max(drawing.height for _, drawing in row) + _HEAD + _SPACE
    inside = f"<style>{style}</style>{''.join(parts)}"
    wide = columns * (width + _SPACE) - _SPACE
    return Drawing(width=wide, height=top - _HEAD, inside=inside, title=title).at(0, 0) + "\n"
