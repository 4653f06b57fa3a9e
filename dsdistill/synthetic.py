"""SyntheticSet: everything a distillation learns, in one module."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dsdistill import seeding
from dsdistill.data.preprocess import Preprocess
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError

Space = Literal["network", "unit"]
Init = Literal["real", "noise", "kmeans"]


class SyntheticSet(nn.Module):
    """The learnable images, class-major, with their fixed labels.

    Attributes:
        images: parameter [K * ipc, C, H, W] in ``space``.
        labels: buffer int64 [K * ipc]: ``ipc`` zeros, then ``ipc`` ones, …
        ipc: images per class.
        space: where ``images`` live: "network" (standardised or whitened, as DC, DSA and DM optimise) or
            "unit" (0 black, 1 white, preprocessed on the way into a network).
    """

    images: nn.Parameter
    labels: Tensor

    def __init__(self, images: Tensor, classes: int, space: Space, preprocess: Preprocess) -> None:
        super().__init__()
        self.ipc = len(images) // classes
        self.space = space
        self.preprocess = preprocess
        self.images = nn.Parameter(images)
        self.register_buffer("labels", torch.arange(classes).repeat_interleave(self.ipc))

    def of(self, classes: Tensor) -> Tensor:
        """Return the images of some classes as a network sees them, [class, image, C, H, W].

        Args:
            classes: int64 [k], label values.
        """
        stored = self.images.unflatten(0, (-1, self.ipc))[classes]
        if self.space == "network":
            return stored
        preprocess = self.preprocess.to(stored.device, stored.dtype)
        return preprocess(stored.flatten(0, 1)).unflatten(0, stored.shape[:2])

    def unit_images(self) -> Tensor:
        """Return all images in unit pixel space [K * ipc, C, H, W], detached; they may exceed [0, 1]."""
        images = self.images.detach()
        if self.space == "unit":
            return images
        return self.preprocess.to(images.device, images.dtype).inverse(images)


def initialise(task: Task, real: RealDataset, ipc: int, init: Init, space: Space, seed: int) -> SyntheticSet:
    """Make the set a run starts from.

    Args:
        task: what is distilled.
        real: the training images.
        ipc: images per class, at least 1 and at most the size of the smallest class.
        init: "real" copies random images of the class; "kmeans" copies the real image nearest to each of
            ``ipc`` k-means centres of the class's pixels; "noise" draws N(0, 1) in network space, or
            N(0.5, 0.25²) clamped to [0, 1] in unit space.
        space: pixel space of the learnable images.
        seed: of the run; this draws from its stream "init".

    Raises:
        UserError: IPC below 1 or above the size of a class.
    """
    if ipc < 1:
        raise UserError(f"IPC must be at least 1, not {ipc}; pass --ipc 1 or more")
    smallest = int(real.counts.argmin())
    if ipc > real.counts[smallest]:
        raise UserError(
            f"IPC {ipc} is more than the {int(real.counts[smallest])} training images of class "
            f"{task.classes[smallest]!r}; choose a smaller --ipc"
        )
    if init == "noise":
        shape = (task.num_classes * ipc, *task.shape)
        images = torch.randn(shape, generator=seeding.generator(seed, "init"))
        if space == "unit":
            images = (images / 4 + 0.5).clamp(0, 1)
    else:
        choose = _random_images if init == "real" else _nearest_to_centres
        chosen = torch.cat([choose(real, label, ipc, seed) for label in range(task.num_classes)])
        images = real.unit(chosen)
        if space == "network":
            images = task.preprocess(images)
    return SyntheticSet(images.contiguous(), task.num_classes, space, task.preprocess)


def _random_images(real: RealDataset, label: int, ipc: int, seed: int) -> Tensor:
    members = real.indices_of(label)
    order = torch.randperm(len(members), generator=seeding.generator(seed, "init", label))
    return members[order[:ipc]]


def _nearest_to_centres(real: RealDataset, label: int, ipc: int, seed: int) -> Tensor:
    """Pick, for each k-means centre in turn, the nearest image of the class that is not yet picked."""
    from sklearn.cluster import MiniBatchKMeans

    members = real.indices_of(label)
    pixels = real.unit(members).flatten(1)
    state = seeding.derive(seed, "init", label) % 2**32
    means = MiniBatchKMeans(ipc, random_state=state, n_init=3, batch_size=4096).fit(pixels.numpy())
    distances = torch.cdist(torch.from_numpy(means.cluster_centers_).to(pixels.dtype), pixels)
    picked = []
    for row in distances:
        picked.append(int(row.argmin()))
        distances[:, picked[-1]] = torch.inf
    return members[torch.tensor(picked)]
