"""Two classes of three clusters each, and the synthetic sets that start from them."""

from __future__ import annotations

import torch
from torch import Tensor

from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset, Task
from dsdistill.synthetic.initial import Init, initialise
from dsdistill.synthetic.multi_formation import MultiFormation
from dsdistill.synthetic.set import Space

PREPROCESS = Standardise.of((0.4,), (0.2,))
TWO = MultiFormation(factor=2)


def clusters(seed: int = 0) -> tuple[Task, RealDataset]:
    """Two classes of three clusters each, of 4, 5 and 6 noisy images around grey levels far apart.

    The first image of a cluster has the least noise, so that it is the nearest to the centre.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(2).repeat_interleave(15)
    levels = torch.tensor([20, 120, 220]).repeat_interleave(torch.tensor([4, 5, 6])).repeat(2)
    noise = torch.randint(8, 19, (30, 1, 4, 4), generator=generator)
    noise *= torch.randint(0, 2, noise.shape, generator=generator) * 2 - 1
    noise[labels.diff(prepend=labels[:1] - 1).bool() | levels.diff(prepend=levels[:1] - 1).bool()] //= 8
    images = (levels[:, None, None, None] + noise).to(torch.uint8)
    order = torch.randperm(30, generator=generator)
    real = RealDataset("clusters", "train", images[order], labels[order], ("one", "two"))
    return Task("clusters", real.classes, 1, 4, PREPROCESS, mirror=True), real


def start(init: Init, ipc: int = 3, space: Space = "unit", seed: int = 0) -> Tensor:
    return initialise(*clusters(), ipc, init, space, seed).images.detach()


def copied(images: Tensor, ipc: int) -> list[int]:
    """Return which real image each image is a copy of, after checking that it is one of its class."""
    _, real = clusters()
    unit = real.unit(slice(None))
    found = []
    for position, image in enumerate(images):
        (same,) = torch.nonzero((unit == image).flatten(1).all(1)).flatten().tolist()
        assert real.labels[same] == position // ipc
        found.append(same)
    return found
