"""What the tests of real data share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from dsdistill.errors import UserError


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
