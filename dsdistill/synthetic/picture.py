"""Small pictures of images by class, for a page, a notebook or a log."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dsdistill.text import plain

INLINE_CLASSES, INLINE_IMAGES = 10, 5
_TILE = 48  # pixels of a side, at most
_SHOWN = 49  # pixels of a column in a notebook
_NAME = 28  # characters of a class name


def grid(images: Tensor, labels: Tensor) -> Tensor:
    """Draw a column per class, of at most 10 classes and 5 images each, with gaps of a pixel.

    Small images keep their size, large ones are reduced.

    Args:
        images: float [N,C,H,W] in unit pixel space, clipped to [0, 1]; 3 channels are red, green and blue, of
            any other number the mean is shown in grey.
        labels: int64 [N], in any order.

    Returns:
        uint8 [2,h,w] grey or [4,h,w] colour; the last channel is the opacity: gaps are transparent.
    """
    columns = first_of_classes(labels.cpu(), INLINE_CLASSES, INLINE_IMAGES)
    chosen = images.detach()[torch.cat(columns).to(images.device)].cpu().float()
    tiles = to_uint8(reduced(displayable(chosen), _TILE))
    channels, height, width = tiles.shape[1:]
    rows = max(map(len, columns))
    page = torch.zeros(
        channels + 1, rows * (height + 1) - 1, len(columns) * (width + 1) - 1, dtype=torch.uint8
    )
    for x, column in enumerate(tiles.split([len(column) for column in columns])):
        for y, tile in enumerate(column):
            top, left = y * (height + 1), x * (width + 1)
            page[:-1, top : top + height, left : left + width] = tile
            page[-1, top : top + height, left : left + width] = 255
    return page


def data_uri(images: Tensor, labels: Tensor) -> str:
    """Return the `grid` of images as a ``data:`` address of a PNG."""
    from PIL import Image

    page = grid(images, labels)
    pixels = page.permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels, "LA" if len(page) == 2 else "RGBA").save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def as_html(images: Tensor, labels: Tensor, classes: Sequence[str], words: str) -> str:
    """Return the `grid` of images with a caption, as notebooks show it.

    Args:
        images, labels: as for `grid`.
        classes: K names in label order.
        words: what the images are.
    """
    shown = labels.unique()[:INLINE_CLASSES].tolist()
    parts = [words, ", ".join(plain(classes[label], _NAME) for label in shown), omissions(labels)]
    caption = html.escape("; ".join(filter(None, parts)))
    style = f"width:{_SHOWN * len(shown)}px;max-width:100%;image-rendering:pixelated"
    return (
        f'<figure style="margin:0"><img src="{data_uri(images, labels)}" style="{style}" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def omissions(labels: Tensor, classes: int = INLINE_CLASSES, images: int = INLINE_IMAGES) -> str:
    """Return which share a picture shows, such as "10 of 12 classes"; empty if it shows all.

    Args:
        labels: int64 [N], of all images.
        classes, images: the most that it shows, as `grid` does by default.
    """
    counts = labels.bincount()
    present, largest = int(counts.count_nonzero()), int(counts.max())
    parts = [f"{classes} of {present} classes"] if present > classes else []
    parts += [f"{images} of up to {largest} images a class"] if largest > images else []
    return ", ".join(parts)


def to_uint8(unit: Tensor) -> Tensor:
    """Clip unit pixels to [0,1] and round them to 256 levels: float of any shape -> uint8."""
    return unit.clamp(0, 1).mul(255).round().to(torch.uint8)


def first_of_classes(labels: Tensor, classes: int, images: int) -> list[Tensor]:
    """Return the positions of the first images of the first classes that have any, class by class."""
    return [(labels == label).nonzero()[:images, 0] for label in labels.unique()[:classes]]


def displayable(images: Tensor) -> Tensor:
    """Reduce images to grey by their mean unless they have 1 or 3 channels."""
    return images if images.shape[1] in (1, 3) else images.mean(1, keepdim=True)


def reduced(images: Tensor, most: int) -> Tensor:
    """Reduce images whose longest side has more pixels than that, antialiased."""
    longest = max(images.shape[2:])
    if longest <= most:
        return images
    size = [max(1, side * most // longest) for side in images.shape[2:]]
    return interpolate(images, size=size, mode="bilinear", antialias=True)
