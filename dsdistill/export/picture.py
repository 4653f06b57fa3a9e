"""A set to look at: one PNG with a row per class."""

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
from dsdistill.files import check_folder, check_replaceable, replace
from dsdistill.storage.set_file import to_uint8

MAX_ROWS = 50
MAX_COLUMNS = 20
_TILE = 64  # pixels an image aims at on the page
_GAP = 2
_MARGIN = 12
_DPI = 100
_FONT = 9  # points
_NAME = 28  # characters of a class name


def grid(
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    path: str | Path,
    title: str | None = None,
) -> None:
    """Draw a set as a PNG: a row per class that has images, its name at the left, its images in order.

    Images are drawn as given; a multi-formation's stored ones show their tiles.
    Small images are enlarged by whole factors without smoothing, large ones reduced. At most 50 classes and
    20 images of each are shown; where that leaves some out, the picture says so.

    Args:
        images: [N,C,H,W] float in unit pixel space, clipped to [0,1] to be shown; 3 channels are red, green
            and blue, of any other count the mean is shown in grey.
        labels: int64 [N], in any order.
        classes: K names in label order.

    Raises:
        UserError: there are no images, the file cannot be written, or another kind of file is there.
    """
    check_replaceable(path, ".png")
    check_folder(path)
    labels = labels.cpu()
    rows = [(labels == label).nonzero()[:, 0] for label in range(len(classes))]
    present = [label for label, row in enumerate(rows) if len(row)]
    if not present:
        raise UserError("there are no images to draw")
    shown = [rows[label][:MAX_COLUMNS] for label in present[:MAX_ROWS]]
    chosen = images.detach()[torch.cat(shown).to(images.device)].cpu().float()
    tiles = to_uint8(_scaled(_as_rgb(chosen)))
    note = _left_out(len(present), max(map(len, rows)))
    names = [_shortened(classes[label]) for label in present[:MAX_ROWS]]
    page = _page(tiles.split([len(row) for row in shown]))
    replace(path, _render(page, names, tiles.shape[2] + _GAP, title, note))


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _as_rgb(images: Tensor) -> Tensor:
    return images if images.shape[1] == 3 else images.mean(1, keepdim=True).expand(-1, 3, -1, -1)


def _scaled(images: Tensor) -> Tensor:
    """Bring images near the tile size: small ones up by whole factors, large ones down, antialiased."""
    longest = max(images.shape[2:])
    if longest <= _TILE:
        return interpolate(images, scale_factor=float(_TILE // longest), mode="nearest")
    if longest <= 2 * _TILE:
        return images
    size = [max(1, side * 2 * _TILE // longest) for side in images.shape[2:]]
    return interpolate(images, size=size, mode="bilinear", antialias=True)


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


def _left_out(classes: int, most: int) -> str:
    """Say what does not fit, or nothing; ``most`` is the largest count of images in a class."""
    cuts = [f"{MAX_ROWS} of {classes} classes"] if classes > MAX_ROWS else []
    cuts += [f"{MAX_COLUMNS} of up to {most} images a class"] if most > MAX_COLUMNS else []
    return "showing " + ", ".join(cuts) if cuts else ""


def _render(page: Tensor, names: Sequence[str], pitch: int, title: str | None, note: str) -> memoryview:
    """Put title, class names, page and note together, pixel for pixel, and encode them as PNG."""
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
        # A name in a script that the font lacks is drawn as boxes; the picture is none the worse.
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
