"""Teachers and stored views for the tests of labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dsdistill.labelling.answering import ViewAnswers
from dsdistill.labelling.config import LabellingConfig
from dsdistill.labelling.draws import ViewDraws
from dsdistill.networks import build_network
from dsdistill.seeding import forked, generator
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.views import Views
from dsdistill.teachers import Committee, Teacher
from tests.helpers.storage import make

NETWORK = "convnet2-w6-batch"


def teacher(seed: int = 0, channels: int = 3, size: int = 8, classes: int = 3, **about: Any) -> Teacher:
    """Return a network that is not trained, but has seen some noise."""
    with forked(seed, "teacher"):
        network = build_network(NETWORK, channels, size, classes)
        network(torch.randn(64, channels, size, size))  # moves the running statistics
    frozen = network.eval().requires_grad_(False)
    return Teacher(frozen, f"teacher {seed}", f"{seed:016x}", **about)


def committee(*seeds: int, **options: Any) -> Committee:
    return Committee([teacher(seed) for seed in seeds or (0,)], **options)


def config(**options: Any) -> LabellingConfig:
    return LabellingConfig(**({"views": 3, "batch_size": 5} | options))


def answers(
    distilled: DistilledSet, options: LabellingConfig, teachers: Committee, flip: bool = True
) -> ViewAnswers:
    """Return what answers to views of a set."""
    bare = dataclasses.replace(distilled, views=None, soft_labels=None)
    data = DistilledDataset(bare)
    draws = ViewDraws(options, len(data), data.images.shape[-1], flip)
    return ViewAnswers(data.images, data.labels, teachers, draws, bare.digest)


def views_of(distilled: DistilledSet, **options: Any) -> Views:
    """Return views of a set, answered by a teacher that knows nothing."""
    labelling = answers(distilled, config(**options), committee())
    return Views.cat([labelling.block(epochs, lambda _: None) for epochs in labelling.blocks()])


def with_views(**options: Any) -> DistilledSet:
    distilled = make()
    return dataclasses.replace(distilled, views=views_of(distilled, **options))


def equal(one: Views, other: Views) -> bool:
    ours, theirs = one.columns(), other.columns()
    same = ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours
    )
    return same and one.about() == other.about()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "noise"))


def replaced(tensor: Tensor, place: Sequence[int], value: float) -> Tensor:
    """Return a copy in which one value is another."""
    copy = tensor.clone()
    copy[tuple(place)] = value
    return copy
