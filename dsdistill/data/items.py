"""Images that are read one by one, from a Dataset, into one array of bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from dsdistill.data import mapped
from dsdistill.data.arrays import Layout, White, as_array, is_array, read_labels
from dsdistill.data.config import DataConfig
from dsdistill.data.convert import fit
from dsdistill.data.decode import BATCH, Survey
from dsdistill.data.pictures import GREY, Decoding, Header, converted, header
from dsdistill.errors import UserError, is_out_of_memory, quoted
from dsdistill.files import reason
from dsdistill.runtime.callbacks import Callback

Side = tuple[int, int]
"""Height and width of an image."""


class Items(Protocol):
    """Images with labels.

    Attributes:
        classes: their names, where the items tell them.
    """

    classes: tuple[str, ...] | None

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        """Yield each image, of Pillow or an array of one image, with its label."""
        ...


class PairItems:
    """The items of a map-style Dataset."""

    def __init__(self, dataset: Any, what: str) -> None:
        """Look at the Dataset, without reading an item.

        Args:
            dataset: with a length, and items by position.
            what: its name in errors.

        Raises:
            UserError: it has no length.
        """
        self._dataset, self._what = dataset, what
        try:
            self._length = len(dataset)
        except (TypeError, NotImplementedError) as error:
            raise UserError(
                f"{what}: {type(dataset).__name__} has no length; give a map-style Dataset, with __len__ and "
                "__getitem__"
            ) from error
        self.classes = _class_names(dataset)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        for index in range(self._length):
            image, label = self._pair(index)
            yield image, as_label(label, f"{self._what}: item {index}")

    def _pair(self, index: int) -> tuple[Any, Any]:
        item = self._item(index)
        if isinstance(item, list | tuple) and len(item) == 2:
            return item[0], item[1]
        kind = f"a {type(item).__name__}"
        if isinstance(item, list | tuple):
            kind = f"{len(item)} values"
        elif isinstance(item, Mapping):
            kind = f"a mapping of {', '.join(map(str, item))}"
        raise UserError(f"{self._what}: item {index} is {kind}, not (image, label); give pairs of these")

    def _item(self, index: int) -> Any:
        try:
            item = self._dataset[index]
            if isinstance(item, list | tuple) and item and isinstance(item[0], Image.Image):
                item[0].load()  # of a file that is opened, but not read
            return item
        except UserError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise UserError(
                f"{self._what}: item {index} raises {type(error).__name__} ({reason(error)}); mend the "
                "Dataset, or leave that item out"
            ) from error


def _class_names(dataset: Any) -> tuple[str, ...] | None:
    """Return the names of the classes, as torchvision's data sets have them; None if there are none."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    names, positions = getattr(dataset, "classes", None), getattr(dataset, "class_to_idx", None)
    if not isinstance(names, list | tuple) and isinstance(positions, Mapping):
        names = sorted(positions, key=lambda name: positions[name])
    if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None


def as_label(value: Any, what: str) -> int:
    """Return a label as an integer.

    Raises:
        UserError: it is none.
    """
    if type(value) is int:
        return value
    array = as_array(value)
    if array.size == 1 and array.dtype.kind in "ui":
        return int(array.reshape(()))
    if array.size > 1 and array.dtype.kind in "uif":
        raise UserError(f"{what} has {array.size} numbers as its label; give one, the class: argmax()")
    raise UserError(f"{what} has the label {quoted(value)}; labels are integers 0..K-1")


@dataclass(frozen=True, eq=False)
class Collected:
    """Images that were read.

    Attributes:
        images: uint8 [N,C,size,size].
        labels: int64 [N].
        native: the height and width of each before it was resized, if all had the same.
    """

    images: Tensor
    labels: Tensor
    native: Side


class _Collector:
    """Converts images one by one to the size and channels that are configured, or those that all have."""

    def __init__(self, total: int, config: DataConfig, what: str) -> None:
        self._total, self._config, self._what = total, config, what
        self._white = White(what)
        self._layouts: set[str] = set()
        self._headers: Counter[Header] = Counter()
        self._images: NDArray[np.uint8] | None = None
        self.native: Side = (0, 0)

    def add(self, image: Any) -> None:
        """Convert the next image.

        Raises:
            UserError: it is no image, of another size than the first, or of values of no known range.
        """
        index = sum(self._headers.values())
        what = f"{self._what}: image {index}"
        array = None if isinstance(image, Image.Image) else self._read(image, what)
        about = header(image) if array is None else _header(array)
        side = (about.height, about.width)
        self.native = side if index == 0 else self.native
        if side != self.native and not self._config.size:
            raise UserError(
                f"{what} is {_by(side)}, and image 0 is {_by(self.native)}; pass size=… (--size) to resize "
                "all"
            )
        decoding = self._decoding(about)
        if array is None:
            pixels = converted(image, decoding, what)
        else:
            pixels = fit(torch.from_numpy(array), decoding.size, decoding.channels)[0].numpy()
        self._images = self._room(decoding)
        self._images[index] = pixels
        self._headers[about] += 1

    def _read(self, image: Any, what: str) -> NDArray[np.uint8]:
        """Read an array of one image as uint8 [1,C,H,W]."""
        if not is_array(image):
            raise UserError(f"{what} is a {type(image).__name__}; give images of Pillow, tensors or arrays")
        array = as_array(image)[None]
        layout = Layout.of(array.shape, array.dtype, what, prefer_last=not isinstance(image, Tensor))
        self._layouts.add(layout.sentence())
        values = self._white.to_bytes(np.ascontiguousarray(layout.channels_first(array)))
        return values if values.flags.writeable else values.copy()

    def _decoding(self, about: Header) -> Decoding:
        """Return how to convert an image; the first coloured one gives all three channels."""
        coloured = about.kind not in GREY or (self._images is not None and self._images.shape[1] == 3)
        return Decoding.of(self._config, min(self.native), 3 if coloured else 1)

    def _room(self, decoding: Decoding) -> NDArray[np.uint8]:
        """Return the array of all images, with as many channels as one needs."""
        images = self._images
        shape = (self._total, decoding.channels, decoding.size, decoding.size)
        if images is not None and images.shape == shape:
            return images
        claim = f"{self._total} images of {decoding.channels}x{decoding.size}x{decoding.size} take"
        room = mapped.room(shape, f"{self._what}: {claim}", "choose a smaller --size")
        if images is not None:  # all were grey so far
            for start in range(0, self._headers.total(), BATCH):
                room[start : start + BATCH] = images[start : start + BATCH]
        return room

    def finished(self, observer: Callback) -> Tensor:
        """Return all images, and report how they were read.

        Raises:
            UserError: some have values of another range.
        """
        assert self._images is not None
        decoding = Decoding.of(self._config, self._images.shape[2], self._images.shape[1])
        for words in filter(None, (self._white.check(), *sorted(self._layouts))):
            observer.on_notice(f"{self._what}: {words}")
        if sentence := Survey(dict(self._headers)).sentence(self._what, decoding):
            observer.on_notice(sentence)
        return mapped.as_tensor(self._images)


def _header(array: NDArray[np.uint8]) -> Header:
    _, channels, height, width = array.shape
    return Header(width, height, "grey" if channels == 1 else "colour")


def _by(side: Side) -> str:
    return f"{side[0]}x{side[1]}"


class ItemPart:
    """A split whose images are read one by one."""

    def __init__(self, items: Items, what: str) -> None:
        """Take the items; none is read.

        Args:
            what: their name in reports and errors.

        Raises:
            UserError: there are none.
        """
        if not len(items):
            raise UserError(f"{what} holds no images")
        self._items, self._what = items, what
        self.classes = items.classes

    def glance(self) -> tuple[Side, Tensor]:
        """Return the height and width of the first image, and its label: int64 [1].

        Raises:
            UserError: as `read`.
        """
        collector = _Collector(1, DataConfig(name=""), self._what)
        image, label = next(iter(self._items))
        collector.add(image)
        return collector.native, read_labels(np.array([label]), 1, self._what)

    def read(self, config: DataConfig, observer: Callback) -> Collected:
        """Read all images, once.

        Raises:
            UserError: an item cannot be read, or is no image with a label; images are of several sizes, and
                none is configured.
        """
        total, labels = len(self._items), []
        collector = _Collector(total, config, self._what)
        task = f"{self._what}: reading"
        observer.on_read(task, 0, total)
        for image, label in self._items:
            collector.add(image)
            labels.append(label)
            if len(labels) % BATCH == 0 or len(labels) == total:
                observer.on_read(task, len(labels), total)
        images = collector.finished(observer)
        return Collected(images, read_labels(np.array(labels), total, self._what), collector.native)
