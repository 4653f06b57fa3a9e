"""Read the user's own arrays: ``npz:PATH``. Images alone are data without labels.

Labels, shapes and types of both splits are checked whichever is read: what is wrong with the test images is
said before a distillation, not after it.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsdistill.config.unlabelled import UNLABELLED
from dsdistill.data import mapped
from dsdistill.data.archive import Archive
from dsdistill.data.arrays import (
    Layout,
    check_labels,
    check_names,
    check_range,
    class_names,
    read_images,
    read_labels,
)
from dsdistill.data.config import DataConfig, Split
from dsdistill.data.convert import present, stratified
from dsdistill.data.real import RealDataset
from dsdistill.errors import UserError, quoted
from dsdistill.files import expanded, open_regular, reason
from dsdistill.runtime.callbacks import Callback

SPLIT_KEYS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)
WHOLE_KEYS = (("images", "labels"), ("x", "y"))


def read(config: DataConfig, split: Split, observer: Callback) -> RealDataset:
    """Read one split of an npz file; a file without a test split is split by ``test_fraction``.

    Raises:
        UserError: the file is missing or damaged, lacks keys, or holds wrong shapes, types or labels.
    """
    path = expanded(config.name.partition(":")[2])
    try:
        with open_regular(path) as file:
            return _read(config, split, Archive(file, str(path)), observer)
    except FileNotFoundError as error:
        raise UserError(f"no such file: {path}; write npz:PATH with a file that numpy.savez wrote") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error


def _read(config: DataConfig, split: Split, archive: Archive, observer: Callback) -> RealDataset:
    keys = set(archive.keys)
    for of_train, of_test in ((four[:2], four[2:]) for four in SPLIT_KEYS if keys.issuperset(four)):
        labels = _labels(archive, *of_train)
        classes = class_names(labels, _class_names(archive), f"{archive.name}: {of_train[1]}")
        test_labels = _labels(archive, *of_test)
        check_range(test_labels, classes, f"{archive.name}: {of_test[1]}")
        if _layout(archive, of_train[0]).shape != _layout(archive, of_test[0]).shape:
            raise UserError(f"{archive.name}: {of_train[0]} and {of_test[0]} hold images of different shapes")
        if split == "test":
            images, labels = _images(archive, of_test[0], observer), test_labels
        else:
            images = _images(archive, of_train[0], observer)
        return present(config, split, images, labels, classes, observer)
    for image_key, label_key in (two for two in WHOLE_KEYS if keys.issuperset(two)):
        labels = _labels(archive, image_key, label_key)
        classes = class_names(labels, _class_names(archive), f"{archive.name}: {label_key}")
        positions = stratified(labels, config.test_fraction, classes)[split]
        images = _images(archive, image_key, observer)
        return present(
            config, split, mapped.gathered(images, positions), labels[positions], classes, observer
        )
    if unlabelled_keys := _without_labels(keys):
        return _read_unlabelled(config, split, archive, unlabelled_keys, observer)
    expected = " or ".join(", ".join(names) for names in SPLIT_KEYS + WHOLE_KEYS)
    shown = (key if key.isprintable() else quoted(key) for key in archive.keys)
    listing = ", ".join(shown)[:_SHOWN] or "(none)"
    raise UserError(
        f"{archive.name} holds the keys {listing}; it needs {expected}, or one array of images without labels"
    )


_SHOWN = 200


def _without_labels(keys: Collection[str]) -> list[str]:
    """Return the keys of images, of train and perhaps of test, where there are none of labels."""
    groups = (*SPLIT_KEYS, *WHOLE_KEYS)
    names = [key for group in groups for key in group if key in keys]
    return names if names in [list(part) for group in groups for part in (group[:1], group[::2])] else []


def _read_unlabelled(
    config: DataConfig, split: Split, archive: Archive, keys: list[str], observer: Callback
) -> RealDataset:
    """Read one split of images alone; without images of test, a part of them is held out."""
    if len(keys) == 2 and _layout(archive, keys[0]).shape != _layout(archive, keys[1]).shape:
        raise UserError(f"{archive.name}: {keys[0]} and {keys[1]} hold images of different shapes")
    images = _images(archive, keys[-1] if split == "test" else keys[0], observer)
    labels = torch.zeros(len(images), dtype=torch.int64)
    if len(keys) == 1:
        positions = stratified(labels, config.test_fraction, UNLABELLED)[split]
        images, labels = mapped.gathered(images, positions), labels[positions]
    return present(config, split, images, labels, UNLABELLED, observer)


def _layout(archive: Archive, key: str) -> Layout:
    """Return the axes of images that are not read."""
    header = archive.header(key)
    return Layout.of(header.shape, header.dtype, f"{archive.name}: {key}")


def _images(archive: Archive, key: str, observer: Callback) -> Tensor:
    """Read images as uint8 [N,C,H,W]."""
    what = f"{archive.name}: {key}"
    images, words = read_images(archive.read(key, observer.on_read), _layout(archive, key), what)
    if words:
        observer.on_notice(f"{what}: {words}")
    return images


def _labels(archive: Archive, image_key: str, label_key: str) -> Tensor:
    """Read the labels of images that are not read: int64 [N], not negative."""
    header, count = archive.header(label_key), _layout(archive, image_key).count
    what = f"{archive.name}: {label_key}"
    check_labels(header.shape, header.dtype, count, what)
    return read_labels(archive.read(label_key), count, what)


def _class_names(archive: Archive) -> tuple[str, ...] | None:
    """Return the names of the classes; None if the file has none."""
    if "classes" not in archive.keys:
        return None
    header, what = archive.header("classes"), f"{archive.name}: classes"
    if len(header.shape) != 1 or header.dtype.kind not in "US":
        raise UserError(f"{what} must be a list of class names (strings), one per label")
    try:
        array: NDArray[np.generic] = archive.read("classes")
        names = tuple(each.decode() if isinstance(each, bytes) else str(each) for each in array.tolist())
    except ValueError as error:
        raise UserError(f"{what} holds a name that is not UTF-8; save the names as text") from error
    check_names(names, what)
    return names
