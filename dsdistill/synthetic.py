"""SyntheticSet: everything a distillation learns, in one module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from dsdistill import seeding
from dsdistill.data.preprocess import Preprocess
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.formation import IDENTITY, Formation, decode, mosaic
from dsdistill.networks.sampler import FrequencySampler

Space = Literal["network", "unit"]
Init = Literal["real", "noise", "kmeans", "mix", "correct", "representative"]


class SyntheticSet(nn.Module):
    """The learnable images, class-major, with their fixed labels.

    Attributes:
        images: parameter [K * ipc, C, H, W] in ``space``, as they are stored.
        adversary: a network that is learned against the images, or None.
        student_lr: parameter, scalar: the learning rate of a student on these images; or None.
        label_logits: parameter [K * ipc, K]: the logits of learned labels; or None where labels are fixed.
        average: buffer like ``images``: their exponential moving average, or None.
        labels: buffer int64 [K * ipc], of the stored images: ``ipc`` zeros, then ``ipc`` ones, …
        ipc: stored images per class.
        space: where ``images`` live: "network" (standardised or whitened, as DC, DSA and DM optimise) or
            "unit" (0 black, 1 white, preprocessed on the way into a network).
        formation: how stored images become training images, always in unit space, as from the file.
        flip: whether mirror images are matched beside them (FYI).
    """

    images: nn.Parameter
    labels: Tensor
    adversary: FrequencySampler | None
    student_lr: nn.Parameter | None
    label_logits: nn.Parameter | None
    average: Tensor | None

    def __init__(
        self,
        images: Tensor,
        classes: int,
        space: Space,
        preprocess: Preprocess,
        formation: Formation = IDENTITY,
    ) -> None:
        super().__init__()
        self.ipc = len(images) // classes
        self.space = space
        self.preprocess = preprocess
        self.formation = formation
        self.flip = False
        self._beside: tuple[torch.device, torch.dtype, Preprocess] | None = None
        self.images = nn.Parameter(images)
        self.adversary = None
        self.student_lr = None
        self.label_logits = None
        self.register_buffer("average", None)
        self.register_buffer("labels", torch.arange(classes).repeat_interleave(self.ipc))

    @property
    def decoded_per_class(self) -> int:
        """Training images that the stored ones of a class become."""
        return self.formation.decoded(self.ipc)

    @property
    def matched_per_class(self) -> int:
        """Images of a class that a matching step sees: those decoded, and their mirror images."""
        return self.decoded_per_class * self.copies

    @property
    def copies(self) -> int:
        """How often a matching step sees each image: twice where mirror images are matched too."""
        return 2 if self.flip else 1

    def batch(self, images: Tensor) -> Tensor:
        """Return what a step sees in place of training images: themselves, or with their mirror images.

        FYI (Son et al., *FYI: Flip Your Images for Dataset Distillation*, ECCV 2024) has every synthetic
        batch [x; flip(x)], before it is augmented; what is learned gets its gradient through both.

        Args:
            images: [..., n, C, H, W].

        Returns:
            ``images``, or [..., 2n, C, H, W].
        """
        return torch.cat([images, images.flip(-1)], -4) if self.flip else images

    def origins(self) -> Tensor:
        """Return which stored image each decoded one comes from, class by class as `of`; int64, CPU."""
        first = torch.arange(0, len(self.labels), self.ipc)
        return (first[:, None] + self.formation.origins(self.ipc)).flatten()

    def of(self, classes: Tensor) -> Tensor:
        """Return the training images of some classes as a network sees them, [class, decoded, C, H, W].

        Args:
            classes: int64 [k], distinct label values in ascending order.
        """
        stored = self.images.unflatten(0, (-1, self.ipc))
        if len(classes) < len(stored):
            stored = stored[classes]
        if self.space == "network" and self.formation.is_identity:
            return stored
        preprocess = self._preprocess_beside()
        if self.space == "network":
            stored = preprocess.inverse(stored.flatten(0, 1)).unflatten(0, stored.shape[:2])
        decoded = decode(stored, self.formation)
        return preprocess(decoded.flatten(0, 1)).unflatten(0, decoded.shape[:2])

    def keep_average(self) -> None:
        """Begin to average the images, from what they are now."""
        self.average = self.images.detach().clone()

    def update_average(self, decay: float) -> None:
        """Move the average towards the images: decay · average + (1 - decay) · images."""
        assert self.average is not None
        self.average.lerp_(self.images.detach(), 1 - decay)

    def unit_images(self) -> Tensor:
        """Return what is stored in unit space [K * ipc, C, H, W], detached; it may exceed [0, 1].

        These are the images, or their average where one is kept.
        """
        images = self.images.detach() if self.average is None else self.average
        return images if self.space == "unit" else self._preprocess_beside().inverse(images)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring the stored pixels back into [0, 1], in place; for sets learned in unit space.

        Raises:
            ValueError: the set lives in network space, where black and white are no bounds.
        """
        if self.space != "unit":
            raise ValueError(f"pixels in {self.space} space are not clamped to [0, 1]")
        self.images.clamp_(0, 1)

    def _preprocess_beside(self) -> Preprocess:
        """Return the preprocessing in the images' device and dtype, kept: inverting a ZCA takes a while."""
        device, dtype = self.images.device, self.images.dtype
        if self._beside is None or self._beside[:2] != (device, dtype):
            self._beside = (device, dtype, self.preprocess.to(device, dtype))
        return self._beside[2]


class Guide(Protocol):
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
    formation: Formation = IDENTITY,
    guide: Guide | None = None,
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
    init: Init, real: RealDataset, task: Task, seed: int, guide: Guide | None
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
