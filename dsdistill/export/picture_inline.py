"""A distilled set as a small PNG inside the page: a column per class, its images below one another."""

from __future__ import annotations

import base64
import io

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dsdistill.storage.set_file import to_uint8
from dsdistill.synthetic.distilled import DistilledSet

MAX_CLASSES = 10
MAX_IMAGES = 5
_TILE = 48  # pixels of a side, at most


def data_uri(distilled: DistilledSet) -> str:
    """Return the picture as a ``data:`` address: at most 10 classes and 5 stored images of each.

    Pixels are clipped to [0, 1]; small images keep their size (the page enlarges them), large ones shrink.
    """
    from PIL import Image

    tiles = to_uint8(_reduced(distilled.images))
    columns = [tiles[distilled.labels == label][:MAX_IMAGES] for label in _shown(distilled)]
    channels, height, width = tiles.shape[1:]
    rows = max(map(len, columns))
    page = torch.zeros(
        channels + 1, rows * (height + 1) - 1, len(columns) * (width + 1) - 1, dtype=torch.uint8
    )
    for column, images in enumerate(columns):
        for row, image in enumerate(images):
            top, left = row * (height + 1), column * (width + 1)
            page[:-1, top : top + height, left : left + width] = image
            page[-1, top : top + height, left : left + width] = 255  # opaque; gaps show the page
    pixels = page.permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels, "LA" if channels == 1 else "RGBA").save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def left_out(distilled: DistilledSet) -> str:
    """Say what the picture does not show; empty where it shows all."""
    most = int(torch.bincount(distilled.labels).max())
    classes = len(distilled.classes)
    cuts = [f"{MAX_CLASSES} of {classes} classes"] if classes > MAX_CLASSES else []
    cuts += [f"{MAX_IMAGES} of {most} images of each"] if most > MAX_IMAGES else []
    return ", ".join(cuts)


def _shown(distilled: DistilledSet) -> list[int]:
    return distilled.labels.unique().tolist()[:MAX_CLASSES]


def _reduced(images: Tensor) -> Tensor:
    """Bring images to 1 or 3 channels and at most the size of a tile."""
    grey = images if images.shape[1] in (1, 3) else images.mean(1, keepdim=True)
    longest = max(grey.shape[2:])
    if longest <= _TILE:
        return grey
    size = [max(1, side * _TILE // longest) for side in grey.shape[2:]]
    return interpolate(grey, size=size, mode="bilinear", antialias=True)
