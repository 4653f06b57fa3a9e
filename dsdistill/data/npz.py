"""Read the user's own arrays: ``npz:PATH``."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsdistill.data.config import DataConfig, Split
from dsdistill.data.convert import present, stratified
from dsdistill.data.real import RealDataset
from dsdistill.data.reporter import Reporter
from dsdistill.errors import UserError
from dsdistill.files import expanded

SPLIT_KEYS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)
WHOLE_KEYS = (("images", "labels"), ("x", "y"))


def _images(array: NDArray[np.generic], what: str) -> Tensor:
    """Bring [N,H,W], [N,H,W,C] or [N,C,H,W] (C is 1 or 3) to uint8 [N,C,H,W]."""
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape:
        raise UserError(
            f"{what} has shape {list(array.shape)}; "
            "save images as [N,H,W], [N,H,W,C] or [N,C,H,W] with 1 or 3 channels"
        )
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # also false for NaN
            raise UserError(f"{what} holds floats outside [0, 1]; divide by the largest value or save uint8")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise UserError(f"{what} is {array.dtype}; save images as uint8, or as floats in [0, 1]")
    return torch.from_numpy(np.ascontiguousarray(array))


def _labels(array: NDArray[np.generic], count: int, what: str) -> Tensor:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (count,):
        raise UserError(f"{what} has shape {list(array.shape)} for {count} images; save one label per image")
    if not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"{what} is {array.dtype}; save labels as integers 0..K-1")
    return torch.from_numpy(array.astype(np.int64))


def _class_names(array: NDArray[np.generic] | None, train: Tensor, what: str) -> tuple[str, ...]:
    if array is None:
        return tuple(str(label) for label in range(int(train.max()) + 1))
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise UserError(f"{what} must be a list of class names (strings), one per label")
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in array.tolist())


def _check(labels: Tensor, classes: tuple[str, ...], what: str, complete: bool) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        label = low if low < 0 else high
        raise UserError(f"{what} holds the label {label}, out of range 0..{len(classes) - 1} of the classes")
    if len(classes) == 1:
        raise UserError(f"{what} holds one class only; classification needs two or more")
    counts = torch.bincount(labels, minlength=len(classes))
    if complete and not bool(counts.all()):
        empty = int(counts.argmin())
        raise UserError(f"{what} has no image of label {empty}; number the labels 0..K-1 without gaps")


def read(config: DataConfig, split: Split, reporter: Reporter) -> RealDataset:
    """Read one split of an npz file; a file without a test split is split by ``test_fraction``.

    Raises:
        UserError: the file is missing or damaged, lacks keys, or holds wrong shapes, types or labels.
    """
    path = expanded(config.name.partition(":")[2])
    if not path.is_file():
        raise UserError(f"no such file: {path}; write npz:PATH with a file that numpy.savez wrote")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is not an npz file; save images and labels with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as file:
            return _read(config, split, file, path, reporter)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"cannot read {path} as an npz file of plain arrays ({error})") from error


def _read(
    config: DataConfig, split: Split, file: np.lib.npyio.NpzFile, path: Path, reporter: Reporter
) -> RealDataset:
    names = file.get("classes")
    for image_key, label_key, test_image_key, test_label_key in SPLIT_KEYS:
        keys = (image_key, label_key, test_image_key, test_label_key)
        if not all(key in file for key in keys):
            continue
        train = _labels(file[label_key], len(file[label_key]), f"{path}: {label_key}")
        classes = _class_names(names, train, f"{path}: classes")
        _check(train, classes, f"{path}: {label_key}", complete=True)
        if split == "test":
            if file[image_key].shape[1:] != file[test_image_key].shape[1:]:
                raise UserError(f"{path}: {image_key} and {test_image_key} hold images of different shapes")
            image_key, label_key = test_image_key, test_label_key
        images = _images(file[image_key], f"{path}: {image_key}")
        labels = _labels(file[label_key], len(images), f"{path}: {label_key}")
        _check(labels, classes, f"{path}: {label_key}", complete=split == "train")
        return present(config, split, images, labels, classes, reporter)
    for image_key, label_key in WHOLE_KEYS:
        if image_key not in file or label_key not in file:
            continue
        images = _images(file[image_key], f"{path}: {image_key}")
        labels = _labels(file[label_key], len(images), f"{path}: {label_key}")
        classes = _class_names(names, labels, f"{path}: classes")
        _check(labels, classes, f"{path}: {label_key}", complete=True)
        positions = stratified(labels, config.test_fraction, classes)[split]
        return present(config, split, images[positions], labels[positions], classes, reporter)
    expected = " or ".join(", ".join(keys) for keys in SPLIT_KEYS + WHOLE_KEYS)
    raise UserError(f"{path} holds the keys {', '.join(sorted(file.files)) or '(none)'}; it needs {expected}")
