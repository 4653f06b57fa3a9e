"""What the synthetic images begin as."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

from dsdistill import seeding
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation, mosaic
from dsdistill.synthetic.set import Space, SyntheticSet

Init = Literal["real", "noise", "kmeans", "mix", "correct", "representative"]


class Teacher(Protocol):
    """Trained networks that real images are chosen by."""

    @property
    def count(self) -> int:
        """How many there are."""

    def logits(self, network: int, images: Tensor) -> Tensor:
        """Classify images [n, C, H, W] in network space -> float32 [n, K], on the CPU, without a graph."""


def initialise(
    task: Task,
    real: RealDataset,
    ipc: int,
    init: Init,
    space: Space,
    seed: int,
    formation: MultiFormation = IDENTITY,
    guide: Teacher | None = None,
) -> SyntheticSet:
    """Make the set a run starts from.

    Args:
        task: what is distilled.
        real: the training images.
        ipc: stored images per class, at least 1 and at most the size of the smallest class.
        init: "real" copies random images of the class; "kmeans" copies the real image nearest to each of
            ``ipc`` k-means centres of the class's pixels, "representative" of the logits that the first
            trained network gives them (AST); "correct" copies random images that a trained network classifies
            correctly (DATM); "noise" draws N(0, 1) in network space, or N(0.5, 0.25²) clamped to [0, 1] in
            unit space; "mix" (IDC) fills the tiles of each image with random images of the class, shrunk,
            ``ipc * formation.factor**2`` of them (IDC's code takes the first ones of the class instead). At
            factor 1 "mix" is "real".
        space: pixel space of the learnable images.
        seed: of the run; this draws from its stream "init".
        formation: how stored images become training images.
        guide: the trained networks, for "correct" and "representative".

    Raises:
        UserError: IPC below 1, a class of fewer images than are needed, a formation that does not fit, or no
            trained networks where they are needed.
    """
    formation.check(task.size)
    if ipc < 1:
        raise UserError(f"IPC must be at least 1, not {ipc}; pass --ipc 1 or more")
    needed = ipc * formation.factor**2 if init == "mix" else ipc
    smallest = int(real.counts.argmin())
    if needed > real.counts[smallest]:
        asked = (
            f"IPC {ipc}" if needed == ipc else f"init 'mix' at IPC {ipc} takes {needed} images a class, which"
        )
        raise UserError(
            f"{asked} is more than the {int(real.counts[smallest])} training images of class "
            f"{task.classes[smallest]!r}; choose a smaller --ipc"
        )
    if init == "noise":
        shape = (task.num_classes * ipc, *task.shape)
        images = torch.randn(shape, generator=seeding.generator(seed, "init"))
        if space == "unit":
            images = (images / 4 + 0.5).clamp(0, 1)
    else:
        choose = _chooser(init, real, task, seed, guide)
        made = []
        for label in range(task.num_classes):
            images = real.unit(choose(label, needed))
            made.append(mosaic(images, formation.factor) if init == "mix" else images)
        images = torch.cat(made)
        if space == "network":
            images = task.preprocess(images)
    return SyntheticSet(images.contiguous(), task.num_classes, space, task.preprocess, formation)


def _chooser(
    init: Init, real: RealDataset, task: Task, seed: int, guide: Teacher | None
) -> Callable[[int, int], Tensor]:
    """Return what picks so many images of a class: (label, count) -> int64 [count] positions in ``real``."""

    def shuffled(label: int) -> Tensor:
        members = real.indices_of(label)
        return members[torch.randperm(len(members), generator=seeding.generator(seed, "init", label))]

    def random(label: int, count: int) -> Tensor:
        return shuffled(label)[:count]

    def by_pixels(label: int, count: int) -> Tensor:
        members = real.indices_of(label)
        return members[_nearest_to_centres(real.unit(members).flatten(1), count, seed, label)]

    if init not in ("correct", "representative"):
        return by_pixels if init == "kmeans" else random
    if guide is None:
        raise UserError(
            f"init={init} chooses images by trained networks, and this method has none: set init=real, or "
            "use a method that follows experts"
        )

    def logits(network: int, rows: Tensor) -> Tensor:
        parts = [guide.logits(network, task.preprocess(real.unit(part))) for part in rows.split(_CHUNK)]
        return torch.cat(parts)

    def representative(label: int, count: int) -> Tensor:
        members = real.indices_of(label)
        return members[_nearest_to_centres(logits(0, members), count, seed, label)]

    def correct(label: int, count: int) -> Tensor:
        """Go through a shuffled class with one network after another, until there are enough."""
        left, picked = shuffled(label), torch.empty(0, dtype=torch.int64)
        for network in range(guide.count):
            for part in left.split(_CHUNK):
                right = part[logits(network, part).argmax(1) == label]
                picked = torch.cat([picked, right])[:count]
                if len(picked) == count:
                    return picked
            left = left[~torch.isin(left, picked)]
        return torch.cat([picked, left])[:count]  # no network knows so many: the others are random

    return representative if init == "representative" else correct


_CHUNK = 256


def _nearest_to_centres(points: Tensor, count: int, seed: int, label: int) -> Tensor:
    """Pick, for each k-means centre of points [n, D] in turn, the nearest point that is not yet picked."""
    from sklearn.cluster import MiniBatchKMeans

    state = seeding.derive(seed, "init", label) % 2**32
    means = MiniBatchKMeans(count, random_state=state, n_init=3, batch_size=4096).fit(points.numpy())
    distances = torch.cdist(torch.from_numpy(means.cluster_centers_).to(points.dtype), points)
    picked = []
    for row in distances:
        picked.append(int(row.argmin()))
        distances[:, picked[-1]] = torch.inf
    return torch.tensor(picked)
