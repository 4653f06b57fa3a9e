"""Initialise the synthetic images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor

from dsdistill import seeding
from dsdistill.config.ipc import counts_of
from dsdistill.data.real import RealDataset, Task
from dsdistill.data.selection import k_means, mini_batch
from dsdistill.errors import UserError
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation, mosaic
from dsdistill.synthetic.set import Space, SyntheticSet

Init = Literal["real", "noise", "kmeans", "mix", "correct", "representative"]


class Teacher(Protocol):
    """Trained networks that real images are selected by."""

    @property
    def count(self) -> int:
        """The number of networks."""

    def logits(self, network: int, images: Tensor) -> Tensor:
        """Classify images [n, C, H, W] in network space -> float32 [n, K], on the CPU, without a graph."""


def initialise(
    task: Task,
    real: RealDataset,
    ipc: int | Sequence[int],
    init: Init,
    space: Space,
    seed: int,
    multi_formation: MultiFormation = IDENTITY,
    teacher: Teacher | None = None,
) -> SyntheticSet:
    """Build the synthetic set that a run starts from.

    Args:
        task: the task to distil.
        real: the training images.
        ipc: stored images of a class, at least 1; one number for all, or one for each. Where a class has
            fewer images than are to be copied, they are repeated, with a little noise: equal images would
            stay equal where means are matched.
        init: "real" copies random images of the class; "kmeans" copies the real image nearest to each of as
            many k-means centres of the class's pixels, "representative" of the logits of the first
            teacher network (AST); "correct" copies random images that a teacher network classifies
            correctly (DATM); "noise" draws N(0, 1) in network space, or N(0.5, 0.25²) clamped to [0, 1] in
            unit space; "mix" (IDC) fills the tiles of each image with random images of the class, shrunk,
            ``multi_formation.factor**2`` for each (IDC's code takes the first ones of the class instead). At
            factor 1 "mix" is "real".
        space: pixel space of the learnable images.
        seed: of the run; this function draws from its stream "init".
        multi_formation: how stored images become training images.
        teacher: the trained networks, for "correct" and "representative".

    Raises:
        UserError: the IPC is below 1, or makes more images than there are real ones; a class has no images;
            the multi-formation does not fit the image size; or there is no teacher where one is needed.
    """
    multi_formation.check(task.size)
    counts = counts_of(ipc, task.num_classes)
    if min(counts) < 1:
        raise UserError(f"IPC must be at least 1, not {min(counts)}; pass --ipc 1 or more")
    if not real.counts.all():
        empty = task.classes[int(real.counts.argmin())]
        raise UserError(f"class {empty!r} of {task.name} has no training images; add some, or leave it out")
    if sum(counts) > len(real):
        raise UserError(
            f"the set would have {sum(counts)} images, more than the {len(real)} training images of "
            f"{task.name}; choose a smaller --ipc"
        )
    if init == "noise":
        shape = (sum(counts), *task.shape)
        images = torch.randn(shape, generator=seeding.generator(seed, "init"))
        if space == "unit":
            images = (images / 4 + 0.5).clamp(0, 1)
    else:
        select = _selection(init, real, task, seed, teacher)
        per_class = []
        for label, needed in enumerate(images_to_start_from(counts, init, multi_formation)):
            images = _repeated(real, select(label, min(needed, int(real.counts[label]))), needed, seed)
            per_class.append(mosaic(images, multi_formation.factor) if init == "mix" else images)
        images = torch.cat(per_class)
        if space == "network":
            images = task.preprocess(images)
    return SyntheticSet(images.contiguous(), counts, space, task.preprocess, multi_formation)


def images_to_start_from(counts: Sequence[int], init: Init, multi_formation: MultiFormation) -> list[int]:
    """Return how many real images of each class are copied into ``counts`` stored ones; not for noise."""
    factor = multi_formation.factor if init == "mix" else 1
    return [count * factor**2 for count in counts]


def _repeated(real: RealDataset, selected: Tensor, count: int, seed: int) -> Tensor:
    """Return ``count`` images of a class in unit space: those selected, then copies of them with noise."""
    images = real.unit(selected[torch.arange(count) % len(selected)])
    if count > len(selected):
        stream = seeding.generator(seed, "init-repeated", int(real.labels[selected[0]]))
        copies = images[len(selected) :]
        noise = _REPEAT_NOISE * torch.randn(copies.shape, generator=stream)
        copies.add_(noise).clamp_(0, 1)
    return images


_REPEAT_NOISE = 0.05  # of the range of a pixel


def _selection(
    init: Init, real: RealDataset, task: Task, seed: int, teacher: Teacher | None
) -> Callable[[int, int], Tensor]:
    """Return the selection from a class: (label, count) -> int64 [count] positions in ``real``."""

    def shuffled(label: int) -> Tensor:
        members = real.indices_of(label)
        return members[torch.randperm(len(members), generator=seeding.generator(seed, "init", label))]

    def random(label: int, count: int) -> Tensor:
        return shuffled(label)[:count]

    def near_centres(label: int, points: Tensor, count: int) -> Tensor:
        fit = partial(mini_batch, seed=seeding.derive(seed, "init", label) % 2**32)
        return real.indices_of(label)[k_means(points, count, fit)]

    def by_pixels(label: int, count: int) -> Tensor:
        return near_centres(label, real.unit(real.indices_of(label)).flatten(1), count)

    if init not in ("correct", "representative"):
        return by_pixels if init == "kmeans" else random
    if teacher is None:
        raise UserError(
            f"init={init} chooses images by trained networks, and this method has none: set init=real, or "
            "use a method that follows experts"
        )

    def logits(network: int, rows: Tensor) -> Tensor:
        parts = [teacher.logits(network, task.preprocess(real.unit(part))) for part in rows.split(_CHUNK)]
        return torch.cat(parts)

    def representative(label: int, count: int) -> Tensor:
        return near_centres(label, logits(0, real.indices_of(label)), count)

    def correct(label: int, count: int) -> Tensor:
        """Classify a shuffled class with one network after another, until enough images are correct."""
        left, selected = shuffled(label), torch.empty(0, dtype=torch.int64)
        for network in range(teacher.count):
            for part in left.split(_CHUNK):
                right = part[logits(network, part).argmax(1) == label]
                selected = torch.cat([selected, right])[:count]
                if len(selected) == count:
                    return selected
            left = left[~torch.isin(left, selected)]
        return torch.cat([selected, left])[:count]  # too few are classified correctly: fill up at random

    return representative if init == "representative" else correct


_CHUNK = 256  # images that a network classifies at once
