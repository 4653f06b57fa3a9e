"""A picture of a distilled set: a PNG with a row per class, its name at the left."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dsdistill.errors import UserError
from dsdistill.files import check_replaceable, expanded, replace
from dsdistill.synthetic.picture import displayable, first_of_classes, omissions, reduced, to_uint8
from dsdistill.text import plain

GRID_CLASSES, GRID_IMAGES = 50, 20
_TILE = 64  # pixels of a side that small images are enlarged to; large ones are reduced to twice as many
_GAP = 2
_MARGIN = 12
_DPI = 100
_FONT = 9  # points
_NAME, _TITLE = 28, 120  # characters of a class name and of the title, at most


def write_grid(
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    path: str | Path,
    title: str | None = None,
) -> None:
    """Draw a set as a PNG: a row per class that has images, its name at the left, its images in order.

    Images are drawn as stored, so those of a multi-formation show their tiles. Small images are enlarged by
    whole factors without smoothing, large ones reduced. At most 50 classes and 20 images of each are shown;
    if some are left out, the picture says so. Long titles and names are cut.

    Args:
        images: [N,C,H,W] float in unit pixel space, clipped to [0,1]; 3 channels are red, green and blue, of
            any other number the mean is shown in grey.
        labels: int64 [N], in any order.
        classes: K names in label order.

    Raises:
        UserError: there are no images, the file cannot be written, or another kind of file is there.
    """
    path = expanded(path)
    check_replaceable(path, ".png")
    labels = labels.cpu()
    if not len(labels):
        raise UserError("there are no images to draw")
    rows = first_of_classes(labels, GRID_CLASSES, GRID_IMAGES)
    tiles = displayable(images.detach()[torch.cat(rows).to(images.device)].cpu().float())
    if (longest := max(tiles.shape[2:])) <= _TILE:
        tiles = interpolate(tiles, scale_factor=float(_TILE // longest), mode="nearest")
    tiles = to_uint8(reduced(tiles, 2 * _TILE).expand(-1, 3, -1, -1))
    omitted = omissions(labels, GRID_CLASSES, GRID_IMAGES)
    names = [plain(classes[int(labels[row[0]])], _NAME) for row in rows]
    page = _page(tiles.split([len(row) for row in rows]))
    note = f"showing {omitted}" if omitted else ""
    heading = plain(title, _TITLE) if title else None
    replace(path, _render(page, names, tiles.shape[2] + _GAP, heading, note))


def _page(rows: Sequence[Tensor]) -> Tensor:
    """Lay rows of tiles uint8 [n,3,h,w] out on white: uint8 [H,W,3]."""
    height, width = (side + _GAP for side in rows[0].shape[2:])
    columns = max(1, *map(len, rows))
    page = torch.full((len(rows) * height, columns * width, 3), 255, dtype=torch.uint8)
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            top, left = y * height, x * width
            page[top : top + height - _GAP, left : left + width - _GAP] = tile.permute(1, 2, 0)
    return page


def _render(page: Tensor, names: Sequence[str], pitch: int, title: str | None, note: str) -> memoryview:
    """Lay out title, class names, page and note, pixel for pixel, and encode them as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    line = round(2 * _FONT * _DPI / 72)
    figure = Figure(dpi=_DPI)
    canvas = FigureCanvasAgg(figure)

    def text(words: str, size: float = _FONT, **options: Any) -> tuple[Text, float]:
        drawn = figure.text(0, 0, words, size=size, parse_math=False, transform=None, **options)
        return drawn, drawn.get_window_extent(canvas.get_renderer()).width

    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        labels = [text(name, va="center", ha="right") for name in names]
        heading = text(title, size=_FONT + 2, va="center", weight="bold") if title else None
        footer = text(note, va="center", color="dimgray") if note else None

        left = _MARGIN + max(round(width) for _, width in labels) + 8
        bottom = _MARGIN + (line if footer else 0)
        height = bottom + len(page) + (round(1.2 * line) if heading else 0) + _MARGIN
        widest = max([left + page.shape[1], *(_MARGIN + item[1] for item in (heading, footer) if item)])
        figure.set_size_inches((widest + _MARGIN) / _DPI, height / _DPI)
        for row, (drawn, _) in enumerate(labels):
            drawn.set_position((left - 8, bottom + len(page) - (row + 0.5) * pitch + _GAP / 2))
        if heading:
            heading[0].set_position((_MARGIN, height - _MARGIN - line / 2))
        if footer:
            footer[0].set_position((_MARGIN, _MARGIN + line / 4))
        figure.figimage(page.numpy(), left, bottom, origin="upper")
        buffer = io.BytesIO()
        canvas.print_png(buffer)
    return buffer.getbuffer()
