"""Read packaged data sets: scikit-learn's digits, IDX files, and torchvision's CIFAR and SVHN."""

from __future__ import annotations

import functools
import gzip
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsdistill.data.config import DataConfig, Split
from dsdistill.data.constants import DIGITS, FASHION, KUZUSHIJI
from dsdistill.data.convert import present
from dsdistill.data.real import RealDataset
from dsdistill.data.reporter import Reporter
from dsdistill.errors import UserError
from dsdistill.files import reason

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist


def read_digits(config: DataConfig, split: Split, reporter: Reporter) -> RealDataset:
    """Read scikit-learn's 1797 real 8x8 digits; a stratified quarter is test."""
    levels, targets, train, test = _digits()
    positions = np.sort(train if split == "train" else test)
    images, labels = torch.from_numpy(levels[positions]), torch.from_numpy(targets[positions]).long()
    return present(config, split, images, labels, DIGITS, reporter)


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
        UserError: the file is damaged or holds something else.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, dimensions = struct.unpack_from(">HBB", raw)
        shape = struct.unpack_from(f">{dimensions}I", raw, 4)
        start = 4 + 4 * dimensions
        if zero != 0 or kind != 8 or len(raw) - start != np.prod(shape):
            raise ValueError("its header does not fit its content")
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UserError(f"{path} is not a whole IDX file of bytes ({error}); fetch it again") from error
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=start).view(shape)


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


def read_mnist_like(config: DataConfig, split: Split, reporter: Reporter) -> RealDataset:
    """Read MNIST, Fashion-MNIST or KMNIST from IDX files."""
    kind, classes = _IDX[config.name]
    files = _idx_files(config, kind, split)
    if files is None and config.download:
        _torchvision(config, kind, train=split == "train")
        files = _idx_files(config, kind, split)
    if files is None:
        raise config.missing(f"its {split} IDX files were")
    images, labels = read_idx(files[0]), read_idx(files[1]).long()
    if images.ndim != 3 or labels.shape != images.shape[:1] or int(labels.max()) >= len(classes):
        raise UserError(f"{files[0]} and {files[1].name} do not fit each other; fetch them again")
    return present(config, split, images[:, None], labels, classes, reporter)


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
    texts: list[str] = []
    each: BaseException | None = error
    while each and len(texts) < 10:
        texts.append(str(each))
        each = each.__cause__ or each.__context__
    text = "\n".join(texts)
    if answer := re.search(r"HTTP Error (\d+):? *(.*)", text):
        return f"the server answers {answer[1]} ({answer[2]}); try later, or pass --root DIR with the files"
    if lost := re.search(r"<urlopen error (?:\[Errno -?\d+\] )?(.*)>", text):
        return f"no connection ({lost[1]}); mend it, or pass --root DIR where the files lie"
    lines = str(error).strip().splitlines()
    return reason(error) if isinstance(error, OSError) or not lines else lines[-1]


def read_cifar(config: DataConfig, split: Split, reporter: Reporter) -> RealDataset:
    """Read CIFAR-10 or CIFAR-100 from torchvision's layout (the Python batches)."""
    data = _torchvision(config, config.name.upper(), train=split == "train")
    images = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
    return present(config, split, images, torch.tensor(data.targets), tuple(data.classes), reporter)


def read_svhn(config: DataConfig, split: Split, reporter: Reporter) -> RealDataset:
    """Read SVHN's cropped digits (without the extra images) from torchvision's layout."""
    data = _torchvision(config, "SVHN", split=split)
    images = torch.from_numpy(np.ascontiguousarray(data.data))
    return present(config, split, images, torch.from_numpy(data.labels), DIGITS, reporter)
