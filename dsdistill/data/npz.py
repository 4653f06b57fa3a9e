"""Read the user's own arrays: ``npz:PATH``.

Labels, shapes and types of both splits are checked whichever is read: what is wrong with the test images is
said before a distillation, not after it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsdistill.data.archive import Archive
from dsdistill.data.config import DataConfig, Split
from dsdistill.data.convert import present, stratified
from dsdistill.data.real import RealDataset
from dsdistill.data.reporter import Reporter
from dsdistill.errors import UserError, quoted
from dsdistill.files import expanded, is_text, open_regular, reason

SPLIT_KEYS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)
WHOLE_KEYS = (("images", "labels"), ("x", "y"))


def read(config: DataConfig, split: Split, reporter: Reporter) -> RealDataset:
    """Read one split of an npz file; a file without a test split is split by ``test_fraction``.

    Raises:
        UserError: the file is missing or damaged, lacks keys, or holds wrong shapes, types or labels.
    """
    path = expanded(config.name.partition(":")[2])
    try:
        with open_regular(path) as file:
            return _read(config, split, Archive(file, str(path)), reporter)
    except FileNotFoundError as error:
        raise UserError(f"no such file: {path}; write npz:PATH with a file that numpy.savez wrote") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error


def _read(config: DataConfig, split: Split, archive: Archive, reporter: Reporter) -> RealDataset:
    keys = set(archive.keys)
    for of_train, of_test in ((four[:2], four[2:]) for four in SPLIT_KEYS if keys.issuperset(four)):
        labels = _labels(archive, *of_train)
        classes = _class_names(archive, labels, of_train[1])
        test_labels = _labels(archive, *of_test)
        _check_range(test_labels, classes, f"{archive.name}: {of_test[1]}")
        if _shape(archive, of_train[0])[1:] != _shape(archive, of_test[0])[1:]:
            raise UserError(f"{archive.name}: {of_train[0]} and {of_test[0]} hold images of different shapes")
        if split == "test":
            images, labels = _images(archive, of_test[0]), test_labels
        else:
            images = _images(archive, of_train[0])
        return present(config, split, images, labels, classes, reporter)
    for image_key, label_key in (two for two in WHOLE_KEYS if keys.issuperset(two)):
        labels = _labels(archive, image_key, label_key)
        classes = _class_names(archive, labels, label_key)
        positions = stratified(labels, config.test_fraction, classes)[split]
        images = _images(archive, image_key)
        return present(config, split, images[positions], labels[positions], classes, reporter)
    expected = " or ".join(", ".join(names) for names in SPLIT_KEYS + WHOLE_KEYS)
    shown = (key if key.isprintable() else quoted(key) for key in archive.keys)
    held = ", ".join(shown)[:_SHOWN] or "(none)"
    raise UserError(f"{archive.name} holds the keys {held}; it needs {expected}")


_SHOWN = 200


def _shape(archive: Archive, key: str) -> tuple[int, int, int, int]:
    """Return the N, C, H, W of images [N,H,W], [N,H,W,C] or [N,C,H,W] (C is 1 or 3) that are not read."""
    header, what = archive.header(key), f"{archive.name}: {key}"
    match header.shape:
        case (count, height, width):
            channels = 1
        case (count, height, width, 1 | 3 as channels):
            pass
        case (count, 1 | 3 as channels, height, width):
            pass
        case _:
            channels = count = height = width = 0
    if 0 in (count, channels, height, width):
        raise UserError(
            f"{what} has shape {list(header.shape)}; "
            "save images as [N,H,W], [N,H,W,C] or [N,C,H,W] with 1 or 3 channels"
        )
    if header.dtype != np.uint8 and not np.issubdtype(header.dtype, np.floating):
        raise UserError(f"{what} is {header.dtype}; save images as uint8, or as floats in [0, 1]")
    return count, channels, height, width


def _images(archive: Archive, key: str) -> Tensor:
    """Read images as uint8 [N,C,H,W]."""
    shape, array = _shape(archive, key), archive.read(key)
    if array.shape != shape:
        array = array[:, None] if array.ndim == 3 else array.transpose(0, 3, 1, 2)
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # also false for NaN
            what = f"{archive.name}: {key}"
            raise UserError(f"{what} holds floats outside [0, 1]; divide by the largest value or save uint8")
        array = np.rint(array * 255).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(array))


def _labels(archive: Archive, image_key: str, label_key: str) -> Tensor:
    """Read the labels of images that are not read: int64 [N], not negative."""
    header, count = archive.header(label_key), _shape(archive, image_key)[0]
    what = f"{archive.name}: {label_key}"
    if header.shape not in ((count,), (count, 1)):
        raise UserError(f"{what} has shape {list(header.shape)} for {count} images; save one label per image")
    if not np.issubdtype(header.dtype, np.integer):
        raise UserError(f"{what} is {header.dtype}; save labels as integers 0..K-1")
    array = archive.read(label_key).reshape(count)
    if (low := int(array.min())) < 0 or (low := int(array.max())) >= 2**63:  # the latter of unsigned ones
        raise UserError(f"{what} holds the label {low}, out of range; number the labels 0..K-1")
    return torch.from_numpy(array.astype(np.int64))


def _class_names(archive: Archive, labels: Tensor, label_key: str) -> tuple[str, ...]:
    """Return the names of the classes, whose labels in train are 0 to K-1, each with an image."""
    what = f"{archive.name}: {label_key}"
    present_labels = labels.unique()
    highest, kinds = int(present_labels[-1]), len(present_labels)
    if "classes" in archive.keys:
        classes = _stored_names(archive)
    else:
        classes = tuple(str(label) for label in range(min(highest + 1, kinds + 1)))
    if "classes" in archive.keys:
        _check_range(labels, classes, what)
    if kinds == 1 and highest == 0:
        raise UserError(f"{what} holds one class only; classification needs two or more")
    if kinds < len(classes):
        empty = next(label for label, found in enumerate([*present_labels.tolist(), -1]) if label != found)
        raise UserError(f"{what} has no image of label {empty}; number the labels 0..K-1 without gaps")
    return classes


def _stored_names(archive: Archive) -> tuple[str, ...]:
    header, what = archive.header("classes"), f"{archive.name}: classes"
    if len(header.shape) != 1 or header.dtype.kind not in "US":
        raise UserError(f"{what} must be a list of class names (strings), one per label")
    try:
        array: NDArray[np.generic] = archive.read("classes")
        names = tuple(each.decode() if isinstance(each, bytes) else str(each) for each in array.tolist())
    except ValueError as error:
        raise UserError(f"{what} holds a name that is not UTF-8; save the names as text") from error
    if strange := next((name for name in names if not is_text(name) or "\0" in name), None):
        raise UserError(f"{what} holds a name that no file can store: {quoted(strange)}")
    if len(set(names)) < len(names):
        double = next(name for number, name in enumerate(names) if name in names[:number])
        raise UserError(f"{what} lists {quoted(double)} twice; give every class its own name")
    return names


def _check_range(labels: Tensor, classes: tuple[str, ...], what: str) -> None:
    """Check that every label has a class."""
    if (highest := int(labels.max())) >= len(classes):
        raise UserError(
            f"{what} holds the label {highest}, out of range 0..{len(classes) - 1} of the classes"
        )
