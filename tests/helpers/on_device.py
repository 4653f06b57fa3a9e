"""Toy data, and files of networks of it, for whole runs on a stand-in of a CUDA device."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

import dsdistill
from dsdistill.seeding import generator
from tests.helpers.data import in_memory
from tests.helpers.trajectories import written

CLASSES, PER_CLASS = 3, 12
CONVNET, BATCH, WIDE = "convnet2-w4", "convnet2-w4-batch", "wideconvnet2-w4-batch"
RESNET = "resnet10-batch-w4"
SCORED = "scored"
"""Not a network: one of `BATCH` that is trained, and was asked how hard each image is."""
EAGER = ["compute.threads=1", "compute.compile=false", "compute.precision=fp32"]


@functools.cache
def images(size: int = 8) -> dict[str, Any]:
    """Return uint8 images and labels of both splits, as `dsdistill.distill` takes them."""
    count = CLASSES * PER_CLASS
    labels = torch.arange(count) % CLASSES
    splits = {}
    for split in ("train", "test"):
        stream = generator(size, f"toys-{split}")
        splits[split] = (
            torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=stream),
            labels,
        )
    return splits


def networks(folder: Path, name: str, size: int = 8) -> Path:
    """Return a file of networks of the images: one, whose weights walk at random for four epochs."""
    file = folder / f"{name}-{size}.h5"
    if not file.exists() and name == SCORED:
        options: dict[str, Any] = {"network": BATCH, "count": 1, "epochs": 1, "device": "cpu"}
        dsdistill.train_experts(file, dataset=images(size), recipe="el2n", **options, overrides=EAGER)
    elif not file.exists():
        task, real, _ = in_memory(images(size))
        written(file, task, real, name, range(5), count=1)
    return file
