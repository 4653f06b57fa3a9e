"""The options of the data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dsdistill.errors import UserError
from dsdistill.files import expanded

Split = Literal["train", "test"]
ROLES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
"""The names of splits, in lower case. Where there is no test split, that for validation is used."""
FETCHED = ("mnist", "fashion-mnist", "kmnist", "svhn", "cifar10", "cifar100")
"""The data sets that torchvision downloads."""
LARGEST_SIZE = 1 << 14


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images to read and how to present them.

    Args:
        name: a catalogue name (``cifar10``), ``folder:PATH``, ``npz:PATH``, ``hf:NAME``, ``hf:PATH``, or
            ``memory:NAME`` for data that are given beside the options.
        root: folder of catalogue data, also for downloads; default ``$DSDISTILL_DATA``, else
            ``~/.cache/dsdistill/data``.
        size: side of the square images in pixels; default native, or inferred for a folder.
        channels: 1 (grey) or 3 (RGB); default native, or inferred for a folder.
        download: fetch a missing catalogue data set.
        zca: whiten instead of standardising.
        mirror: whether a mirrored image keeps its label, so that augmentation may flip; the default is a
            property of the catalogue data set, and true for data of one's own.
        range: the value of 16-bit greyscale pictures that becomes white, such as 4095 for 12 bits; default
            65535.
        pad: reach ``size`` by black margins around the images, in place of resizing.
        exif: turn pictures as their EXIF data say.
        unlabelled: leave the labels out: all images are of one class, whose name says that it is none.
        test_fraction: share of each class held out as test if data of one's own have no test split.

    Raises:
        UserError: a value is out of range.
    """

    name: str
    root: Path | None = None
    size: int | None = None
    channels: int | None = None
    download: bool = False
    zca: bool = False
    test_fraction: float = 0.2
    mirror: bool | None = None
    range: int | None = None
    pad: bool = False
    exif: bool = False
    unlabelled: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.test_fraction < 1:
            raise UserError(f"test_fraction must lie between 0 and 1, not {self.test_fraction:g}")
        if self.size is not None and not 1 <= self.size <= LARGEST_SIZE:
            raise UserError(f"size must lie between 1 and {LARGEST_SIZE} pixels, not {self.size:.15g}")
        if self.pad and self.size is None:
            raise UserError("data.pad=true needs the size to reach: pass --size, as --size 32")
        if self.range is not None and not 1 <= self.range < 1 << 31:
            raise UserError(f"range must lie between 1 and {(1 << 31) - 1}, not {self.range}")
        if self.channels not in (None, 1, 3):
            raise UserError(f"channels must be 1 (grey) or 3 (RGB), not {self.channels}")

    @property
    def folder(self) -> Path:
        """The root, or its default."""
        default = os.environ.get("DSDISTILL_DATA") or "~/.cache/dsdistill/data"
        return expanded(self.root or default)

    def missing(self, what: str) -> UserError:
        """Build the error for a catalogue data set that is not on this machine."""
        root = "--root DIR where it lies"
        fetch = f"pass --download to fetch it, or {root}"
        remedy = fetch if self.name in FETCHED else f"it is not offered for download: pass {root}"
        return UserError(f"data set {self.name!r}: {what} not found under {self.folder}; {remedy}")
