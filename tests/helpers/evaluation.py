"""Small tasks, sets and students for the tests of evaluation."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import dsdistill
from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset, Task
from dsdistill.evaluation.ensembles import CPU
from dsdistill.evaluation.students import HeldOut
from dsdistill.networks import Network, build_network
from dsdistill.protocol import Protocol, load_protocol
from dsdistill.seeding import forked
from dsdistill.synthetic.distilled import DistilledDataset, DistilledSet

SIZE, CLASSES = 8, 3
NETWORK = (
    "convnet2-w8"  # a third block would normalise maps of 2×2, then average them: hardly anything is left
)
PACKAGE = Path(dsdistill.__file__).parent
PREPROCESS = Standardise.of((0.5,), (0.25,))


def tiny(**changes: object) -> Protocol:
    values: dict[str, object] = {"epochs": 4, "batch_size": 4, "repeats": 2, "lr": 0.05}
    return load_protocol("dm", **{**values, **changes})


def fresh(repeat: int, name: str = NETWORK) -> Network:
    with forked(0, "test", repeat):
        return build_network(name, 1, SIZE, CLASSES)


def real(per_class: int, seed: int = 0, split: str = "train") -> RealDataset:
    """Stripes: class 0 flat, 1 horizontal, 2 vertical, under noise; learnable, but not at once."""
    labels = torch.arange(CLASSES).repeat_interleave(per_class)
    noise = torch.rand(len(labels), 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    stripes = torch.zeros(CLASSES, 1, SIZE, SIZE)
    stripes[1, :, ::2] = stripes[2, :, :, ::2] = 0.5
    pixels = (stripes[labels] + 0.5 * noise).mul(255).to(torch.uint8)
    return RealDataset("stripes", split, pixels, labels, ("flat", "rows", "columns"))


def task(mirror: bool = False, size: int = SIZE) -> Task:
    return Task("stripes", real(1).classes, 1, size, PREPROCESS, mirror)


def distilled(per_class: int = 3, soft: bool = False, **attributes: str | int | float) -> DistilledDataset:
    data = real(per_class, seed=5)
    logits = torch.nn.functional.one_hot(data.labels, CLASSES).float() * 3 if soft else None
    images = data.unit(slice(None))
    whole = DistilledSet(images, data.labels, data.classes, PREPROCESS, logits, attributes=attributes)
    return DistilledDataset(whole)


def training_set(seed: int = 5, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    data = real(3, seed)
    return PREPROCESS.to(dtype=dtype)(data.unit(slice(None)).to(dtype)), data.labels


def held_out() -> HeldOut:
    return HeldOut(real(40, seed=1, split="test"), PREPROCESS, CPU)


def weights(network: Network) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])
