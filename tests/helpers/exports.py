"""The distilled sets that the tests of export write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dsdistill.data.preprocess import Standardise
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet


def written(path: Path, channels: int = 3, **fields: object) -> DistilledSet:
    images = torch.rand(6, channels, 5, 7, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    values: dict = {
        "images": images,
        "labels": torch.tensor([0, 0, 1, 1, 1, 2]),
        "classes": ("plane", "car", "bird"),
        "preprocess": Standardise(torch.full((channels,), 0.5), torch.full((channels,), 0.25)),
    }
    distilled = DistilledSet(**(values | fields))
    set_file.write(path, distilled)
    return distilled


def of_cifar(path: Path, channels: int = 3, **fields: object) -> DistilledSet:
    """Two images a class of three classes, 32 pixels a side, that claim to come from CIFAR-10."""
    images = torch.rand(6, channels, 32, 32, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    about = {"dataset": "cifar10", "protocol": "dsa", "network": "convnet3"}
    values: dict = {"images": images, "labels": torch.tensor([0, 0, 1, 1, 2, 2]), "attributes": about}
    return written(path, channels, **(values | fields))


def as_bytes(images: torch.Tensor) -> np.ndarray:
    return np.rint(np.clip(images.double().numpy(), 0, 1) * 255).astype(np.uint8)
