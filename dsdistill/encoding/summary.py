"""What an encoding leaves, for its caller and for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dsdistill.storage.set_description import describe
from dsdistill.synthetic.coded import Coding
from dsdistill.text import byte_size


@dataclass(frozen=True)
class EncodeSummary:
    """How images were coded.

    >>> summary = dsdistill.encode("set.h5", "small.h5", bits=2)
    >>> summary.coding, summary.bytes_before > summary.bytes_after
    (Coding(bits=2, patch=4, groups=0), True)

    Attributes:
        path: the file that was written.
        coding: bits of a pixel, side of a patch, and shared quantisers.
        storage: the same, for people.
        bytes_before, bytes_after: of the images in the files, compressed.
        label_bytes: of the labels, which stay as they are.
        error: root of the mean squared error of a pixel, in unit pixel space.
        largest_error: of a pixel.
    """

    path: Path
    coding: Coding
    storage: str
    bytes_before: int
    bytes_after: int
    label_bytes: int
    error: float
    largest_error: float

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield what the terminal shows: names and texts."""
        before, after = byte_size(self.bytes_before), byte_size(self.bytes_after)
        yield "file", f"{self.path} ({byte_size(self.path.stat().st_size)})"
        yield "images", f"{self.storage}: {after}, before {before}"
        yield "labels", byte_size(self.label_bytes)
        yield "error", f"{self.error:.4f} of a pixel, {self.largest_error:.4f} at most (0 black, 1 white)"


def summarise(path: Path, coding: Coding, before: int, error: float, largest_error: float) -> EncodeSummary:
    """Return the summary of a file of coded images.

    Args:
        before: bytes of the images in the file that they come from.
        error, largest_error: of a pixel, as `EncodeSummary` has them.
    """
    about = describe(path)
    return EncodeSummary(
        path=path,
        coding=coding,
        storage=about.storage,
        bytes_before=before,
        bytes_after=about.image_bytes,
        label_bytes=about.label_bytes,
        error=error,
        largest_error=largest_error,
    )
