"""Read one picture file: its header, and its pixels at some size and number of channels."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, features

from dsdistill.data.config import DataConfig
from dsdistill.errors import UserError
from dsdistill.files import open_regular, reason

GREY = {"grey", "transparent grey", "16-bit"}
TRANSPARENT = {"transparent", "transparent grey"}
FULL_RANGE = 65535
"""The largest value of 16 bits."""

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "QOI": (".qoi",),
    "TGA": (".tga",),
    "PCX": (".pcx",),
}
"""The formats that are read, and no others: Pillow also takes some that start programs (EPS) or are no
pictures. Whatever its suffix, a file may be of any of them."""
_UNMARKED = {"TGA", "PCX"}
"""Formats that nearly any bytes may pass for: a file is of one of them only if its suffix says so."""
_LIBRARIES = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}
"""What Pillow may have been built without."""


@dataclass(frozen=True)
class Decoding:
    """What pictures are decoded to: uint8 [channels,size,size].

    Attributes:
        range: the value of 16-bit files that becomes white; None: 65535.
        exif: whether pictures are turned as their EXIF data say.
    """

    size: int
    channels: int
    range: int | None = None
    exif: bool = False

    @classmethod
    def of(cls, config: DataConfig, size: int, channels: int) -> Decoding:
        """Return what the options say, with a size and channels for where they leave these open."""
        return cls(config.size or size, config.channels or channels, config.range, config.exif)


class Header(NamedTuple):
    """What is known of a picture before it is decoded.

    Attributes:
        kind: grey, colour, 16-bit, transparent or transparent grey.
        bits: of the largest value of a 16-bit picture; 8 for all others.
        turned: whether its EXIF data say that it is to be turned.
        animated: whether it has several frames.
    """

    width: int
    height: int
    kind: str
    bits: int = 8
    turned: bool = False
    animated: bool = False


@functools.cache
def _formats() -> dict[str, tuple[str, ...]]:
    """Map each format that this Pillow can read to its suffixes."""
    Image.init()
    return {
        name: suffixes
        for name, suffixes in _SUFFIXES.items()
        if name in Image.OPEN and (name not in _LIBRARIES or features.check(_LIBRARIES[name]))
    }


@functools.cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of the files that are taken for pictures, in lower case."""
    return frozenset(suffix for each in _formats().values() for suffix in each)


@contextmanager
def opened(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """Open a picture.

    Args:
        path: of its file.
        content: of that file, where it is in memory or part of an archive.

    Raises:
        UserError: the file is damaged, not a picture or not a regular file (the message names it); also where
            the block meets the damage.
    """
    suffix = path.suffix.lower()
    formats = [name for name, own in _formats().items() if name not in _UNMARKED or suffix in own]
    try:
        source = open_regular(path) if content is None else BytesIO(content)
        with source as file, Image.open(file, formats=formats) as image:
            yield image
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path} has gone since the folder was listed") from error
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged bytes
        why = "not a picture" if isinstance(error, Image.UnidentifiedImageError) else reason(error)
        raise UserError(f"cannot read the picture {path} ({why}); replace or delete it") from error


def probe(path: Path) -> Header:
    """Read a file's header; of a 16-bit picture all pixels, for the largest value.

    Raises:
        UserError: as `opened`.
    """
    with opened(path) as image:
        return header(image)


def header(image: Image.Image) -> Header:
    """Describe an opened picture."""
    bits = 8
    if image.mode.startswith("I"):
        kind, bits = "16-bit", max(int(np.asarray(image).max()), 0).bit_length()
    elif image.has_transparency_data:
        kind = "transparent grey" if image.mode in ("L", "LA", "La") else "transparent"
    else:
        kind = "grey" if image.mode in ("1", "L") else "colour"
    return Header(image.width, image.height, kind, bits, _turned(image), _animated(image))


def _turned(image: Image.Image) -> bool:
    """Whether EXIF data say that a picture is to be turned or mirrored, and Pillow does not do so itself."""
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return False  # Pillow turns TIFF files, and looks for the data of PNG files behind the pixels
    try:
        return image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)
    except Exception:  # such data are often damaged, which harms no pixel
        return False


def _animated(image: Image.Image) -> bool:
    """Whether a picture has several frames; those in a camera's JPEG files are previews."""
    try:
        return image.format not in ("JPEG", "MPO") and bool(getattr(image, "is_animated", False))
    except (OSError, ValueError):  # its file is closed; what was loaded is one frame
        return False


def _to_8_bit(image: Image.Image, path: Path | str, limit: int | None) -> Image.Image:
    """Scale 0..limit, or the 16-bit range, of modes I;16 and I to 0..255."""
    if image.mode == "F":
        raise UserError(f"{path} holds floating-point pixels of unknown range; save it with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image, dtype=np.float64)
    if limit is not None and values.max() > limit:
        raise UserError(
            f"{path} holds the value {values.max():.0f}, above data.range={limit}; raise or omit data.range"
        )
    if values.min() < 0 or values.max() > (limit or FULL_RANGE):
        raise UserError(f"{path} holds pixels outside the 16-bit range; save it with 8 or 16 bits")
    return Image.fromarray(np.rint(values * 255 / (limit or FULL_RANGE)).astype(np.uint8))


def pixels(path: Path, decoding: Decoding) -> NDArray[np.uint8]:
    """Decode one file to uint8 [channels,size,size], as `converted` does.

    Raises:
        UserError: as `opened` and `converted`.
    """
    with opened(path) as image:
        return converted(image, decoding, path)


def converted(image: Image.Image, decoding: Decoding, name: Path | str) -> NDArray[np.uint8]:
    """Convert an opened picture to uint8 [channels,size,size].

    16-bit values are scaled to 8 bits, transparency is composited onto white, RGB becomes ITU-R 601 luma if
    ``channels`` is 1. Resizing is bilinear and antialiased and does not keep the aspect. Of an animation the
    first frame is read. EXIF rotation is applied only if asked for, as torchvision's ImageFolder does not.

    Args:
        name: for errors.

    Raises:
        UserError: values are floats, or lie above ``range``.
    """
    size, channels = decoding.size, decoding.channels
    if decoding.exif:
        image.load()
        if _turned(image):
            image = ImageOps.exif_transpose(image)
    image = _to_8_bit(image, name, decoding.range)
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    values = np.asarray(image, dtype=np.uint8)
    return values[None] if channels == 1 else values.transpose(2, 0, 1)
