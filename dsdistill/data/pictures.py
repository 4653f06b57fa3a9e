"""Read one picture file: its kind, and its pixels at some size and number of channels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsdistill.errors import UserError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
GREY = {"grey", "transparent grey", "16-bit"}
TRANSPARENT = {"transparent", "transparent grey"}


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path} has gone since the folder was listed") from error
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged bytes
        reason = "not a picture" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise UserError(f"cannot read the picture {path} ({reason}); replace or delete it") from error


def probe(path: Path) -> tuple[int, int, str]:
    """Read a file's header: width, height and kind (grey, colour, 16-bit, transparent, transparent grey)."""
    with _opened(path) as image:
        if image.mode.startswith("I"):
            kind = "16-bit"
        elif image.has_transparency_data:
            kind = "transparent grey" if image.mode in ("L", "LA", "La") else "transparent"
        else:
            kind = "grey" if image.mode in ("1", "L") else "colour"
        return image.width, image.height, kind


def _to_8_bit(image: Image.Image, path: Path) -> Image.Image:
    """Scale the 16-bit range of modes I;16 and I to 0..255."""
    if image.mode == "F":
        raise UserError(f"{path} holds floating-point pixels of unknown range; save it with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image, dtype=np.float64)
    if values.min() < 0 or values.max() > 65535:
        raise UserError(f"{path} holds pixels outside the 16-bit range; save it with 8 or 16 bits")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))


def pixels(path: Path, size: int, channels: int) -> NDArray[np.uint8]:
    """Decode one file to uint8 [channels,size,size].

    16-bit values are scaled to 8 bits, transparency is composited onto white, RGB becomes ITU-R 601 luma if
    ``channels`` is 1. Resizing is bilinear and antialiased and does not keep the aspect. Of an animation the
    first frame is read. EXIF rotation is not applied, as in torchvision's ImageFolder.

    Raises:
        UserError: the file is damaged or not a picture (the message names it).
    """
    with _opened(path) as image:
        image = _to_8_bit(image, path)
        if image.has_transparency_data:
            canvas = Image.new("RGBA", image.size, "white")
            canvas.alpha_composite(image.convert("RGBA"))
            image = canvas
        image = image.convert("L" if channels == 1 else "RGB")
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        values = np.asarray(image, dtype=np.uint8)
    return values[None] if channels == 1 else values.transpose(2, 0, 1)
