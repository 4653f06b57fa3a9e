"""Pictures and files of the real on-disk layouts, as the tests of real data write them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig, Split
from dsdistill.data.memory import opened
from dsdistill.data.real import RealDataset, Task
from dsdistill.data.sources import DataSource
from dsdistill.errors import UserError
from tests.helpers.callbacks import Told


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: NDArray[Any], mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)


def class_folders(
    root: Path, per_class: int = 6, size: int = 8, classes: tuple[str, ...] = ("cat", "dog")
) -> Path:
    for k, name in enumerate(classes):
        for i in range(per_class):
            save(root / name / f"{i}.png", pixels(size, size, 3, seed=100 * k + i))
    return root


def fails(match: str, name: str, split: str = "train", **options: Any) -> None:
    with pytest.raises(UserError, match=match) as caught:
        load(DataConfig(name=name, **options), split)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def in_memory(
    dataset: DataSource, split: Split = "train", **options: Any
) -> tuple[Task, RealDataset, list[str]]:
    """Read a split of data in memory; return also what was said about it."""
    name, source = opened(dataset)
    assert name is not None
    told: list[str] = []
    task, data = load(DataConfig(name=name, **options), split, Told(notify=told.append), source)
    return task, data, told


def refuses(match: str, dataset: Any, split: Split = "train", **options: Any) -> None:
    """Check that data in memory are refused with one line."""
    with pytest.raises(UserError, match=match) as caught:
        in_memory(dataset, split, **options)
    assert "\n" not in str(caught.value)


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = header + array.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_mnist(folder: Path, ending: str = ".gz") -> None:
    for prefix, n in (("train", 20), ("t10k", 10)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte{ending}", pixels(n, 28, 28, seed=n))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{ending}", np.arange(n, dtype=np.uint8) % 10)
