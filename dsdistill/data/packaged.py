"""Read packaged data sets: scikit-learn's digits, IDX files, and torchvision's CIFAR and SVHN."""

from __future__ import annotations

import functools
import gzip
import math
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsdistill.data.config import DataConfig, Split
from dsdistill.data.constants import DIGITS, FASHION, KUZUSHIJI
from dsdistill.data.convert import present
from dsdistill.data.real import RealDataset
from dsdistill.errors import UserError, causes
from dsdistill.files import INFLATION, open_regular, reason
from dsdistill.runtime.callbacks import Callback
from dsdistill.runtime.device import check_memory

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist


def read_digits(config: DataConfig, split: Split, observer: Callback) -> RealDataset:
    """Read scikit-learn's 1797 real 8x8 digits; a stratified quarter is test."""
    levels, targets, train, test = _digits()
    positions = np.sort(train if split == "train" else test)
    images, labels = torch.from_numpy(levels[positions]), torch.from_numpy(targets[positions]).long()
    return present(config, split, images, labels, DIGITS, observer)


@functools.cache
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return scikit-learn's images [N, 1, 8, 8] and labels [N], and the rows of train and test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    levels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    train, test = train_test_split(
        np.arange(len(levels)), test_size=0.25, random_state=0, stratify=bunch.target
    )
    return levels, bunch.target, train, test


def read_idx(path: Path) -> Tensor:
    """Read an IDX file of unsigned bytes, gzipped or plain: uint8 of the shape its header states.

    Raises:
        UserError: the file is damaged, holds something else, or does not fit into memory.
    """
    with _opened_idx(path) as (file, shape):
        count = math.prod(shape)
        check_memory(f"{path} takes", 2 * count)
        data = file.read(count + 1)  # to the end, where a packed file has its checksum
        if len(data) != count:
            raise ValueError(_UNFIT)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(shape)


def idx_shape(path: Path) -> tuple[int, ...]:
    """Return the shape that an IDX file's header states.

    Raises:
        UserError: the file is damaged or holds something else.
    """
    with _opened_idx(path) as (_, shape):
        return shape


_UNFIT = "its header does not fit its content"


@contextmanager
def _opened_idx(path: Path) -> Iterator[tuple[IO[bytes], tuple[int, ...]]]:
    """Open an IDX file and read its header; what is wrong with either becomes a UserError."""
    try:
        with open_regular(path) as raw:
            size = os.fstat(raw.fileno()).st_size
            packed = path.suffix == ".gz"
            file = cast(IO[bytes], gzip.GzipFile(fileobj=raw) if packed else raw)
            zero, kind, dimensions = struct.unpack(">HBB", file.read(4))
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            if zero != 0 or kind != 8 or not 0 < math.prod(shape) <= size * (INFLATION if packed else 1):
                raise ValueError(_UNFIT)
            yield file, shape
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UserError(
            f"{path} is not a whole IDX file of bytes ({reason(error)}); fetch it again"
        ) from error


_IDX = {  # name -> torchvision's class, class names
    "mnist": ("MNIST", DIGITS),
    "fashion-mnist": ("FashionMNIST", FASHION),
    "kmnist": ("KMNIST", KUZUSHIJI),
}


def _idx_files(config: DataConfig, kind: str, split: Split) -> tuple[Path, Path] | None:
    """Find a split's image and label files: in torchvision's layout, in the root, or in Debian's folder.

    The root comes second, because all three data sets use the same file names. A packed file comes before the
    unpacked one, because its checksum shows whether it is complete.
    """
    folders = [config.folder / kind / "raw", config.folder]
    if config.name == "fashion-mnist":
        folders.append(DEBIAN_FASHION)
    prefix = "train" if split == "train" else "t10k"
    for folder in folders:
        for ending in (".gz", ""):
            images = folder / f"{prefix}-images-idx3-ubyte{ending}"
            labels = folder / f"{prefix}-labels-idx1-ubyte{ending}"
            if images.is_file() and labels.is_file():
                return images, labels
    return None


def read_mnist_like(config: DataConfig, split: Split, observer: Callback) -> RealDataset:
    """Read MNIST, Fashion-MNIST or KMNIST from IDX files."""
    kind, classes = _IDX[config.name]
    files = _idx_files(config, kind, split)
    if files is None and config.download:
        _torchvision(config, kind, train=split == "train")
        files = _idx_files(config, kind, split)
    if files is None:
        raise config.missing(f"its {split} IDX files were")
    other = _idx_files(config, kind, "test" if split == "train" else "train")
    for pair in filter(None, (files, other)):  # what is wrong with test is said before a distillation
        _check_pair(*pair, len(classes))
    images, labels = read_idx(files[0]), read_idx(files[1]).long()
    return present(config, split, images[:, None], labels, classes, observer)


def _check_pair(images: Path, labels: Path, classes: int) -> None:
    """Check that files of images and labels fit each other, from the header of the former.

    Raises:
        UserError: they do not, or one is damaged.
    """
    shape, label_values = idx_shape(images), read_idx(labels)
    if len(shape) != 3 or label_values.shape != shape[:1] or int(label_values.max()) >= classes:
        raise UserError(f"{images} and {labels.name} do not fit each other; fetch them again")


def _torchvision(config: DataConfig, kind: str, **arguments: Any) -> Any:
    """Build one of torchvision's data sets, which checks its files against published MD5 sums."""
    from torchvision import datasets

    try:
        if config.download:
            config.folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            # CIFAR's pickles of 2009 use a deprecated spelling of a dtype.
            warnings.filterwarnings(
                "ignore", message=r".*align", category=np.exceptions.VisibleDeprecationWarning
            )
            return getattr(datasets, kind)(config.folder, download=config.download, **arguments)
    except (RuntimeError, OSError) as error:
        if config.download:
            raise UserError(f"cannot download {config.name!r} to {config.folder}: {_cause(error)}") from error
        raise config.missing("files with the published MD5 sums were") from error


def _cause(error: BaseException) -> str:
    """Return in one line why a download failed; torchvision says it in a later line, or an error before."""
    text = "\n".join(map(str, causes(error, implicit=True)))
    if answer := re.search(r"HTTP Error (\d+):? *(.*)", text):
        return f"the server answers {answer[1]} ({answer[2]}); try later, or pass --root DIR with the files"
    if lost := re.search(r"<urlopen error (?:\[Errno -?\d+\] )?(.*)>", text):
        return f"no connection ({lost[1]}); mend it, or pass --root DIR where the files lie"
    lines = str(error).strip().splitlines()
    return reason(error) if isinstance(error, OSError) or not lines else lines[-1]


def read_cifar(config: DataConfig, split: Split, observer: Callback) -> RealDataset:
    """Read CIFAR-10 or CIFAR-100 from torchvision's layout (the Python batches)."""
    data = _torchvision(config, config.name.upper(), train=split == "train")
    images = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
    return present(config, split, images, torch.tensor(data.targets), tuple(data.classes), observer)


def read_svhn(config: DataConfig, split: Split, observer: Callback) -> RealDataset:
    """Read SVHN's cropped digits (without the extra images) from torchvision's layout."""
    data = _torchvision(config, "SVHN", split=split)
    images = torch.from_numpy(np.ascontiguousarray(data.data))
    return present(config, split, images, torch.from_numpy(data.labels), DIGITS, observer)
