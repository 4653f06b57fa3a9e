"""A picture of a distilled set: a PNG with a row per class, its name at the left."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dsdistill.config.unlabelled import is_labelled
from dsdistill.errors import UserError
from dsdistill.files import check_replaceable, expanded, replace
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.extra_labels import extra_labels
from dsdistill.synthetic.picture import displayable, first_of_classes, omissions, reduced, to_uint8
from dsdistill.text import plain

if TYPE_CHECKING:
    from PIL import ImageFont

GRID_CLASSES, GRID_IMAGES = 50, 20
_TILE = 64  # pixels of a side that small images are enlarged to; large ones are reduced to twice as many
_GAP = 2
_MARGIN, _LINE, _BESIDE = 12, 26, 8  # pixels around all, of a line, and between a name and its row
_TEXT, _HEADING = 13, 16  # pixels of a font
_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf")
"""Fonts of many scripts, the most first. A character that the font lacks is drawn as a box."""
_NAME, _TITLE = 28, 120  # characters of a class name and of the title, at most


def titled_labels(distilled: DistilledSet) -> list[str]:
    """Say of a set that it has no labels, and what its targets are, if that is so."""
    words = [] if is_labelled(distilled.classes) else ["without labels"]
    targets = extra_labels(distilled).get("targets")
    return [*words, targets] if targets else words


def rows_of(distilled: DistilledSet) -> tuple[Tensor, Sequence[str]]:
    """Return the row of each image of a set, int64 [n], and the names of rows, as `write_grid` takes them.

    Of a set without labels, rows are filled one after the other, with as many images as fit the picture.
    """
    if is_labelled(distilled.classes):
        return distilled.labels, distilled.classes
    count = min(len(distilled.images), GRID_CLASSES * GRID_IMAGES)
    rows = torch.arange(count) // GRID_IMAGES
    return rows, [f"from {GRID_IMAGES * row + 1}" for row in range(int(rows[-1]) + 1)]


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
