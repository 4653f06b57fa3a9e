"""Arrays of images and labels: which are read, and as what.

Images are grey [N,H,W], or [N,H,W,C] or [N,C,H,W] with 1 or 3 channels. Their values are bytes, or numbers of
which the largest tells whether 1 or 255 is white. Labels are the integers 0..K-1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsdistill.data import mapped
from dsdistill.errors import UserError, quoted
from dsdistill.files import is_text

_DARK = 32
"""Numbers whose largest is above 1 and below this are levels of 0..16 or the like, or overshoot 1: as
levels of 0..255 they would be nearly black."""


def is_array(value: Any) -> bool:
    """Whether a value is a tensor, an array of numpy, or one that numpy can take without a copy."""
    return isinstance(value, Tensor) or hasattr(value, "__array__")


def as_array(value: Any) -> NDArray[Any]:
    """Return the values of a tensor or array, in the memory of the machine."""
    if isinstance(value, Tensor):
        value = value.detach().to_dense().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return value if isinstance(value, np.memmap) else np.asarray(value)


@dataclass(frozen=True)
class Layout:
    """The axes of an array of images.

    Attributes:
        ambiguous: whether its shape would also allow the other place of the channels.
    """

    count: int
    channels: int
    height: int
    width: int
    channels_last: bool = False
    ambiguous: bool = False

    @classmethod
    def of(cls, shape: Sequence[int], dtype: np.dtype, what: str, prefer_last: bool = True) -> Layout:
        """Decide which axis is which.

        Args:
            shape, dtype: of the array, which need not be read.
            what: its name in errors.
            prefer_last: whether the channels are last where they may also be first.

        Raises:
            UserError: the array holds no images.
        """
        match tuple(shape):
            case (count, height, width):
                layout = cls(count, 1, height, width)
            case (count, 1 | 3 as first, height, 1 | 3 as last) if prefer_last:
                layout = cls(count, last, first, height, channels_last=True, ambiguous=True)
            case (count, 1 | 3 as channels, height, width):
                layout = cls(count, channels, height, width, ambiguous=width in (1, 3))
            case (count, height, width, 1 | 3 as channels):
                layout = cls(count, channels, height, width, channels_last=True)
            case _:
                layout = cls(0, 0, 0, 0)
        if 0 in (layout.count, *layout.shape):
            raise UserError(
                f"{what} has shape {list(shape)}; images are [N,H,W], [N,H,W,C] or [N,C,H,W] with 1 or 3 "
                "channels"
            )
        if dtype.kind not in "uif":
            raise UserError(f"{what} is {dtype}; images are uint8, or floats in 0..1")
        return layout

    @property
    def shape(self) -> tuple[int, int, int]:
        """The C, H, W of an image."""
        return self.channels, self.height, self.width

    def channels_first(self, array: NDArray[Any]) -> NDArray[Any]:
        """View an array of this layout as [N,C,H,W]."""
        if array.ndim == 3:
            return array[:, None]
        return array.transpose(0, 3, 1, 2) if self.channels_last else array

    def sentence(self) -> str:
        """Say where the channels are, if the shape leaves that open; empty otherwise."""
        if not self.ambiguous:
            return ""
        return (
            "channels last, though they may be first"
            if self.channels_last
            else "channels first, though they may be last"
        )


class White:
    """Whether 1 or 255 is white in numbers that are no bytes: decided array by array, checked over all."""

    def __init__(self, what: str) -> None:
        """Begin.

        Args:
            what: the name of the images in errors.
        """
        self._what = what
        self._largest: dict[int, float] = {}

    def to_bytes(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        """Convert an array to uint8.

        Raises:
            UserError: values are negative, above 255, or no numbers.
        """
        if array.dtype == np.uint8:
            return array
        low, high = _extremes(array)
        if not (low >= 0 and high <= 255):  # also false for NaN
            raise self._outside(float(low), float(high))
        white = 1 if array.dtype.kind == "f" and high <= 1 else 255
        self._largest[white] = max(float(high), self._largest.get(white, 0.0))
        converted = mapped.room(array.shape, f"{self._what} takes")
        for rows in _blocks(array):
            part = _wide(array[rows])
            converted[rows] = np.rint(part * 255) if white == 1 else np.rint(part)
        return converted

    def _outside(self, low: float, high: float) -> UserError:
        if math.isnan(low):
            return UserError(f"{self._what} holds values that are not numbers (NaN); mend them")
        if low < 0:
            return UserError(
                f"{self._what} holds values from {low:.4g} to {high:.4g}; leave out what normalises them "
                "(Normalize), and give uint8, or floats in 0..1"
            )
        return UserError(
            f"{self._what} holds values up to {high:.6g}, above 255; divide by the largest, to floats in 0..1"
        )

    def check(self) -> str:
        """Check that all arrays are of one range, and say of which; empty if all were bytes.

        Raises:
            UserError: they are not, or none is bright.
        """
        unit, byte = self._largest.get(1), self._largest.get(255)
        if unit and byte:
            raise UserError(
                f"{self._what} holds images up to {unit:.4g} and others up to {byte:.4g}; give all in 0..1, "
                "or all as uint8"
            )
        if byte is not None and byte < _DARK:
            raise UserError(
                f"{self._what} holds values up to {byte:.4g}, nearly black where 255 is white; give uint8, "
                "or divide by the value of white, to floats in 0..1"
            )
        if byte is not None:
            return "values in 0..255, 255 is white"
        return "" if unit is None else "values in 0..1, 1 is white"


def read_images(array: NDArray[Any], layout: Layout, what: str) -> tuple[Tensor, str]:
    """Read images as uint8 [N,C,H,W], without a copy where they are that already.

    Args:
        array: of the layout.
        what: its name in errors.

    Returns:
        the images, and how they were read in words: empty if nothing had to be decided.

    Raises:
        UserError: the values are of no known range, or do not fit into memory.
    """
    white = White(what)
    values = white.to_bytes(layout.channels_first(array))
    if not values.flags.c_contiguous or not (values.flags.writeable or isinstance(values, np.memmap)):
        values = _copied(values, what)
    words = ", ".join(filter(None, (white.check(), layout.sentence())))
    return mapped.as_tensor(values), words


def _copied(values: NDArray[np.uint8], what: str) -> NDArray[np.uint8]:
    """Copy images to an array in C order.

    Raises:
        UserError: there is no room for it.
    """
    copy = mapped.room(values.shape, f"{what} takes")
    for rows in _blocks(values):
        copy[rows] = values[rows]
    return copy


def _blocks(array: NDArray[Any]) -> Iterator[slice]:
    """Yield the places of the images that are converted at once."""
    size = mapped.rows_of(array[0].size * 8)
    return (slice(start, start + size) for start in range(0, len(array), size))


def _wide(array: NDArray[Any]) -> NDArray[Any]:
    """Return half-precision numbers as float32, which holds 255 times as much; others as they are."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _extremes(array: NDArray[Any]) -> tuple[Any, Any]:
    """Return the smallest and the largest value; NaN if there is one."""
    lowest, highest = zip(
        *((part.min(), part.max()) for part in (_wide(array[rows]) for rows in _blocks(array))), strict=True
    )
    return np.min(lowest), np.max(highest)


def check_labels(shape: Sequence[int], dtype: np.dtype, count: int, what: str) -> None:
    """Check the labels of so many images, which need not be read.

    Raises:
        UserError: they are not one integer per image.
    """
    if len(shape) == 2 and shape[0] == count and shape[1] > 1:
        raise UserError(
            f"{what} has shape {list(shape)}, a row per image; give one label per image: argmax(1)"
        )
    if tuple(shape) not in ((count,), (count, 1)):
        raise UserError(f"{what} has shape {list(shape)} for {count} images; give one label per image")
    if dtype.kind not in "ui":
        names = "; numpy.unique(labels, return_inverse=True) numbers names" if dtype.kind in "USO" else ""
        raise UserError(f"{what} is {dtype}; labels are integers 0..K-1{names}")


def read_labels(array: NDArray[Any], count: int, what: str) -> Tensor:
    """Read the labels of so many images: int64 [N], not negative.

    Raises:
        UserError: as `check_labels`; or one is out of range.
    """
    check_labels(array.shape, array.dtype, count, what)
    if (low := int(array.min())) < 0 or (low := int(array.max())) >= 2**63:  # the latter of unsigned ones
        raise UserError(f"{what} holds the label {low}, out of range; number the labels 0..K-1")
    return torch.from_numpy(array.reshape(count).astype(np.int64))


def class_names(labels: Tensor, names: tuple[str, ...] | None, what: str) -> tuple[str, ...]:
    """Return the names of the classes, whose labels in train are 0 to K-1, each with an image.

    Args:
        labels: of the train split.
        names: of the classes; without any they are called "0" to "K-1".
        what: the name of the labels in errors.

    Raises:
        UserError: a class has no image, a label no class; or there is one class only.
    """
    present = labels.unique()
    highest, kinds = int(present[-1]), len(present)
    if names is not None:
        check_range(labels, names, what)
        classes = names
    else:
        classes = tuple(str(label) for label in range(min(highest + 1, kinds + 1)))
    if kinds == 1 and highest == 0:
        raise UserError(f"{what} holds one class only; classification needs two or more")
    if kinds < len(classes):
        empty = next(label for label, other in enumerate([*present.tolist(), -1]) if label != other)
        raise UserError(f"{what} has no image of label {empty}; number the labels 0..K-1 without gaps")
    return classes


def check_names(names: Sequence[str], what: str) -> None:
    """Check the names of classes.

    Raises:
        UserError: a file could not store one, or one is there twice.
    """
    if strange := next((name for name in names if not is_text(name) or "\0" in name), None):
        raise UserError(f"{what} holds a name that no file can store: {quoted(strange)}")
    if len(set(names)) < len(names):
        double = next(name for number, name in enumerate(names) if name in names[:number])
        raise UserError(f"{what} lists {quoted(double)} twice; give every class its own name")


def check_range(labels: Tensor, classes: tuple[str, ...], what: str) -> None:
    """Check that every label has a class.

    Raises:
        UserError: one has none.
    """
    if (highest := int(labels.max())) >= len(classes):
        raise UserError(
            f"{what} holds the label {highest}, out of range 0..{len(classes) - 1} of the classes"
        )
