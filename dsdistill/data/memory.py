"""Data in memory: arrays, Datasets of torch and Hugging Face, and mappings of splits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from dsdistill.data import mapped, tables
from dsdistill.data.arrays import (
    Layout,
    as_array,
    check_range,
    class_names,
    is_array,
    read_images,
    read_labels,
)
from dsdistill.data.config import ROLES, DataConfig, Split
from dsdistill.data.convert import presented, stratified
from dsdistill.data.items import Collected, ItemPart, PairItems, Side
from dsdistill.data.real import RealDataset
from dsdistill.data.sources import DataSource, ImageData
from dsdistill.errors import UserError
from dsdistill.runtime.callbacks import Callback


class Part(Protocol):
    """One split before it is read.

    Attributes:
        classes: names, where the data tell them.
    """

    classes: tuple[str, ...] | None

    def glance(self) -> tuple[Side, Tensor]:
        """Return height and width of the first image, and labels that are known without reading on."""
        ...

    def read(self, config: DataConfig, observer: Callback) -> Collected:
        """Read all images."""
        ...


class ArrayPart:
    """A split of arrays, which are checked at once and converted when it is read."""

    classes: tuple[str, ...] | None = None

    def __init__(self, images: Any, labels: Any, what: str) -> None:
        """Check shapes, types and labels.

        Args:
            what: the name of the split in reports and errors.

        Raises:
            UserError: they are none of images and labels.
        """
        self._images, self._what = as_array(images), what
        shape, dtype, prefer_last = self._images.shape, self._images.dtype, not isinstance(images, Tensor)
        self._layout = Layout.of(shape, dtype, self._of_images, prefer_last)
        self._labels = read_labels(as_array(labels), self._layout.count, f"{what}: the array of labels")

    @property
    def _of_images(self) -> str:
        return f"{self._what}: the array of images"

    def glance(self) -> tuple[Side, Tensor]:
        """Return height and width of the images, and all labels."""
        return (self._layout.height, self._layout.width), self._labels

    def read(self, config: DataConfig, observer: Callback) -> Collected:
        """Convert the images.

        Raises:
            UserError: their values are of no known range, or do not fit into memory.
        """
        images, words = read_images(self._images, self._layout, self._of_images)
        if words:
            observer.on_notice(f"{self._what}: {words}")
        native = self._layout.height, self._layout.width
        return Collected(presented(config, self._what, images, observer), self._labels, native)


class InMemory:
    """Data in memory, each split of which is read once."""

    def __init__(
        self, data: ImageData, name: str = "", notice: str = "", roots: Sequence[Path] | None = None
    ) -> None:
        """Look at the data; images are not read.

        Args:
            data: of one's own.
            name: of the data set; default ``memory:`` and the name of the data.
            notice: what its user should know about how the splits were found.
            roots: folders outside which tables may name no picture; default anywhere.

        Raises:
            UserError: they are nothing that can be read.
        """
        self.name = name or f"memory:{data.name or _kind(data.train)}"
        self._whole = data.test is None
        self._train = _part(data.train, self._name_of("train"), roots)
        self._test = None if data.test is None else _part(data.test, self._name_of("test"), roots)
        self._classes = self._train.classes if data.classes is None else tuple(data.classes)
        self._notice = notice
        self._read: dict[tuple[Part, DataConfig], Collected] = {}

    def read(self, config: DataConfig, split: Split, observer: Callback) -> RealDataset:
        """Read one split; data without a test split are split by ``test_fraction``.

        Of a test split, labels and the size of images are checked with the train split as far as they are
        known without reading it.

        Raises:
            UserError: the images or labels are not such as `ImageData` describes.
        """
        if self._notice and not self._read:
            observer.on_notice(f"{self.name}: {self._notice}")
        train = self._collected(self._train, config, observer)
        classes = class_names(train.labels, self._classes, self._name_of("train"))
        if self._test is None:
            positions = stratified(train.labels, config.test_fraction, classes)[split]
            images = mapped.gathered(train.images, positions)
            return RealDataset(config.name, split, images, train.labels[positions], classes)
        side, labels = self._test.glance()
        self._check_size(side, train.native, config)
        labels = self._numbered(labels, classes)
        if split == "train":
            return RealDataset(config.name, split, train.images, train.labels, classes)
        test = self._collected(self._test, replace(config, channels=train.images.shape[1]), observer)
        return RealDataset(config.name, split, test.images, self._numbered(test.labels, classes), classes)

    def _name_of(self, split: Split) -> str:
        """Return what a split is called in reports and errors."""
        return self.name if self._whole else f"{self.name} ({split})"

    def _collected(self, part: Part, config: DataConfig, observer: Callback) -> Collected:
        """Read a split, or return what was read of it with the same options; whitening comes later."""
        key = part, replace(config, zca=False)
        if key not in self._read:
            self._read[key] = part.read(config, observer)
        return self._read[key]

    def _check_size(self, test: Side, train: Side, config: DataConfig) -> None:
        if test != train and not config.size:
            sizes = " and ".join(f"{height}x{width}" for height, width in (train, test))
            raise UserError(
                f"{self.name}: train and test hold images of different sizes, {sizes}; pass size=… (--size)"
            )

    def _numbered(self, labels: Tensor, classes: tuple[str, ...]) -> Tensor:
        """Return labels of the test split as train numbers its classes, where both name them.

        Raises:
            UserError: test has a class that train does not have, or a label without a class.
        """
        what, own, train = self._name_of("test"), self._test and self._test.classes, self._train.classes
        if own and train and own != train:
            if odd := [name for name in own if name not in train]:
                raise UserError(f"{what} has the class {odd[0]!r}, which train does not have; leave it out")
            check_range(labels, own, what)
            labels = torch.tensor([train.index(name) for name in own])[labels]
        check_range(labels, classes, what)
        return labels


def opened(dataset: DataSource | None) -> tuple[str | None, InMemory | None]:
    """Return the name of what ``dataset=`` takes, and the data if they are in memory.

    Raises:
        UserError: it is none of what `DataSource` describes.
    """
    if dataset is None or isinstance(dataset, str):
        return dataset, None
    if isinstance(dataset, Path):
        return str(dataset), None
    if isinstance(dataset, Mapping):
        data, notice = splits_of(dataset)
        if type(dataset) is not dict:  # Hugging Face's DatasetDict
            data = replace(data, name=type(dataset).__name__)
    else:
        data, notice = dataset if isinstance(dataset, ImageData) else ImageData(dataset), ""
    source = InMemory(data, notice=notice)
    return source.name, source


def splits_of(splits: Mapping[str, Any]) -> tuple[ImageData, str]:
    """Find train and test among named splits; that for validation is taken where there is no test split.

    Returns:
        the data, and a sentence if not all is as its names say; else nothing.

    Raises:
        UserError: there is no train split.
    """
    roles = {role: name for name in reversed(list(splits)) if (role := ROLES.get(str(name).casefold()))}
    if "train" not in roles:
        names = ", ".join(map(str, splits)) or "(none)"
        raise UserError(f"the data have the splits {names}; they need train, and test if there is one")
    train, test = roles["train"], roles.get("test") or roles.get("val")
    notices = [f"{test} is the test split"] if test and "test" not in roles else []
    if unused := [str(name) for name in splits if name not in (train, test)]:
        notices.append(f"not used: {', '.join(unused)}")
    return ImageData(splits[train], splits[test] if test else None), "; ".join(notices)


_TAKEN = "a name, (images, labels), a map-style Dataset, or a mapping with train and test"


def _part(value: Any, what: str, roots: Sequence[Path] | None) -> Part:
    """Return one split as what can be read.

    Raises:
        UserError: it cannot.
    """
    kind = type(value).__name__
    if isinstance(value, tuple):
        if len(value) == 2 and is_array(value[0]):
            return ArrayPart(*value, what)
        raise UserError(
            f"{what} is a tuple of {len(value)}, of which the first is a {_first(value)}; give (images, "
            "labels), or {'train': (images, labels), 'test': (images, labels)}"
        )
    if isinstance(value, list) and len(value) == 2 and is_array(value[0]):
        raise UserError(f"{what} is a list of images and labels; write a tuple: (images, labels)")
    if is_array(value):
        raise UserError(f"{what} is one {kind}, images without labels; give (images, labels)")
    if isinstance(value, DataLoader):
        raise UserError(f"{what} is a DataLoader; give its Dataset: loader.dataset")
    if isinstance(value, IterableDataset) or tables.is_stream(value):
        raise UserError(
            f"{what} is read in one direction only, being of type {kind}; give a map-style Dataset"
        )
    if tables.is_table(value):
        return ItemPart(tables.TableItems(value, what, roots), what)
    if isinstance(value, str | Mapping) or not hasattr(value, "__getitem__"):
        raise UserError(f"{what} is of type {kind}; dataset= takes {_TAKEN}")
    return ItemPart(PairItems(value, what), what)


def _first(value: tuple[Any, ...]) -> str:
    return type(value[0]).__name__ if value else "missing"


def _kind(data: Any) -> str:
    """Name data by what they are: arrays, or the class of a Dataset."""
    if tables.is_table(data):
        name = tables.name_of(data)
    elif isinstance(data, tuple):
        name = "arrays"
    else:
        while isinstance(data, Subset):
            data = data.dataset
        name = type(data).__name__
    return re.sub(r"[^\w.+-]", "-", name)[:100]
