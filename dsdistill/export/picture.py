"""Pictures of a distilled set: a PNG with a row per class, and a small one inside a web page."""

from __future__ import annotations

import base64
import contextlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dsdistill.errors import UserError
from dsdistill.files import check_replaceable, expanded, replace
from dsdistill.storage.set_file import to_uint8
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.text import plain

if TYPE_CHECKING:
    from PIL import ImageFont

GRID_CLASSES, GRID_IMAGES = 50, 20
INLINE_CLASSES, INLINE_IMAGES = 10, 5
_TILE = 64  # pixels of a side that small images are enlarged to; large ones are reduced to twice as many
_INLINE_TILE = 48  # pixels of a side, at most
_GAP = 2
_MARGIN, _LINE, _BESIDE = 12, 26, 8  # pixels around all, of a line, and between a name and its row
_TEXT, _HEADING = 13, 16  # pixels of a font
_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf")
"""Fonts of many scripts, the most first. A character that the font lacks is drawn as a box."""
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
    rows = _selection(labels, GRID_CLASSES, GRID_IMAGES)
    tiles = _displayable(images.detach()[torch.cat(rows).to(images.device)].cpu().float())
    if (longest := max(tiles.shape[2:])) <= _TILE:
        tiles = interpolate(tiles, scale_factor=float(_TILE // longest), mode="nearest")
    tiles = to_uint8(_reduced(tiles, 2 * _TILE).expand(-1, 3, -1, -1))
    omitted = omissions(labels, GRID_CLASSES, GRID_IMAGES)
    names = [plain(classes[int(labels[row[0]])], _NAME) for row in rows]
    page = _page(tiles.split([len(row) for row in rows]))
    note = f"showing {omitted}" if omitted else ""
    heading = plain(title, _TITLE) if title else None
    replace(path, _render(page, names, tiles.shape[2] + _GAP, heading, note))


def data_uri(distilled: DistilledSet) -> str:
    """Return a picture as a ``data:`` address: a column per class, of at most 10 classes and 5 images each.

    Images are drawn as stored, clipped to [0, 1]. Small images keep their size (the page enlarges them),
    large ones are reduced.
    """
    from PIL import Image

    columns = _selection(distilled.labels, INLINE_CLASSES, INLINE_IMAGES)
    tiles = to_uint8(_reduced(_displayable(distilled.images[torch.cat(columns)]), _INLINE_TILE))
    channels, height, width = tiles.shape[1:]
    rows = max(map(len, columns))
    page = torch.zeros(
        channels + 1, rows * (height + 1) - 1, len(columns) * (width + 1) - 1, dtype=torch.uint8
    )
    for x, column in enumerate(tiles.split([len(column) for column in columns])):
        for y, tile in enumerate(column):
            top, left = y * (height + 1), x * (width + 1)
            page[:-1, top : top + height, left : left + width] = tile
            page[-1, top : top + height, left : left + width] = 255  # opaque; gaps show the page
    pixels = page.permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels, "LA" if channels == 1 else "RGBA").save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def omissions(labels: Tensor, classes: int = INLINE_CLASSES, images: int = INLINE_IMAGES) -> str:
    """Return which share a picture shows, such as "10 of 12 classes"; empty if it shows all.

    Args:
        labels: int64 [N], of all images.
        classes, images: the most that it shows, as `data_uri` does by default.
    """
    counts = labels.bincount()
    present, largest = int(counts.count_nonzero()), int(counts.max())
    parts = [f"{classes} of {present} classes"] if present > classes else []
    parts += [f"{images} of up to {largest} images a class"] if largest > images else []
    return ", ".join(parts)


def _selection(labels: Tensor, classes: int, images: int) -> list[Tensor]:
    """Return the positions of the first images of the first classes that have any, class by class."""
    return [(labels == label).nonzero()[:images, 0] for label in labels.unique()[:classes]]


def _displayable(images: Tensor) -> Tensor:
    """Reduce images to grey by their mean unless they have 1 or 3 channels."""
    return images if images.shape[1] in (1, 3) else images.mean(1, keepdim=True)


def _reduced(images: Tensor, most: int) -> Tensor:
    """Reduce images whose longest side has more pixels than that, antialiased."""
    longest = max(images.shape[2:])
    if longest <= most:
        return images
    size = [max(1, side * most // longest) for side in images.shape[2:]]
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


def _render(page: Tensor, names: Sequence[str], pitch: int, title: str | None, note: str) -> bytes:
    """Lay out title, class names, page and note, pixel for pixel, and encode them as PNG."""
    from PIL import Image, ImageDraw

    small, large = _font(_TEXT), _font(_HEADING)
    left = _MARGIN + round(max(map(small.getlength, names))) + _BESIDE
    top = _MARGIN + (_LINE if title else 0)
    bottom = top + len(page) + (_LINE if note else 0)
    texts = [small.getlength(note), large.getlength(title or "")]
    right = max(left + page.shape[1], *(_MARGIN + math.ceil(length) for length in texts))

    picture = Image.new("RGB", (right + _MARGIN, bottom + _MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    for row, name in enumerate(names):
        middle = top + (row + 0.5) * pitch - _GAP / 2
        draw.text((left - _BESIDE, middle), name, "black", small, anchor="rm")
    draw.text((_MARGIN, top - _LINE / 2), title or "", "black", large, anchor="lm")
    draw.text((_MARGIN, bottom - _LINE / 3), note, "dimgray", small, anchor="lm")
    picture.paste(Image.fromarray(page.numpy()), (left, top))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return the first of `_FONTS` that is installed; else Pillow's own, which has ASCII only."""
    from PIL import ImageFont

    for name in _FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)  # type: ignore[return-value]
