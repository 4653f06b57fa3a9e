"""SyntheticSet: everything a distillation learns, in one module."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dsdistill import seeding
from dsdistill.data.preprocess import Preprocess
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.formation import IDENTITY, Formation, decode, mosaic
from dsdistill.networks.sampler import FrequencySampler

Space = Literal["network", "unit"]
Init = Literal["real", "noise", "kmeans", "mix"]


class SyntheticSet(nn.Module):
    """The learnable images, class-major, with their fixed labels.

    Attributes:
        images: parameter [K * ipc, C, H, W] in ``space``, as they are stored.
        adversary: a network that is learned against the images, or None.
        labels: buffer int64 [K * ipc], of the stored images: ``ipc`` zeros, then ``ipc`` ones, …
        ipc: stored images per class.
        space: where ``images`` live: "network" (standardised or whitened, as DC, DSA and DM optimise) or
            "unit" (0 black, 1 white, preprocessed on the way into a network).
        formation: how stored images become training images, always in unit space, as from the file.
    """

    images: nn.Parameter
    labels: Tensor
    adversary: FrequencySampler | None

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
        self._beside: tuple[torch.device, torch.dtype, Preprocess] | None = None
        self.images = nn.Parameter(images)
        self.adversary = None
        self.register_buffer("labels", torch.arange(classes).repeat_interleave(self.ipc))

    @property
    def decoded_per_class(self) -> int:
        """Training images that the stored ones of a class become."""
        return self.formation.decoded(self.ipc)

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

    def unit_images(self) -> Tensor:
        """Return the stored images in unit space [K * ipc, C, H, W], detached; they may exceed [0, 1]."""
        images = self.images.detach()
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


def initialise(
    task: Task,
    real: RealDataset,
    ipc: int,
    init: Init,
    space: Space,
    seed: int,
    formation: Formation = IDENTITY,
) -> SyntheticSet:
    """Make the set a run starts from.

    Args:
        task: what is distilled.
        real: the training images.
        ipc: stored images per class, at least 1 and at most the size of the smallest class.
        init: "real" copies random images of the class; "kmeans" copies the real image nearest to each of
            ``ipc`` k-means centres of the class's pixels; "noise" draws N(0, 1) in network space, or
            N(0.5, 0.25²) clamped to [0, 1] in unit space; "mix" (IDC) fills the tiles of each image with
            random images of the class, shrunk, ``ipc * formation.factor**2`` of them (IDC's code takes the
            first ones of the class instead). At factor 1 "mix" is "real".
        space: pixel space of the learnable images.
        seed: of the run; this draws from its stream "init".
        formation: how stored images become training images.

    Raises:
        UserError: IPC below 1, a class of fewer images than are needed, or a formation that does not fit.
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
        choose = _nearest_to_centres if init == "kmeans" else _random_images
        made = []
        for label in range(task.num_classes):
            images = real.unit(choose(real, label, needed, seed))
            made.append(mosaic(images, formation.factor) if init == "mix" else images)
        images = torch.cat(made)
        if space == "network":
            images = task.preprocess(images)
    return SyntheticSet(images.contiguous(), task.num_classes, space, task.preprocess, formation)


def _random_images(real: RealDataset, label: int, count: int, seed: int) -> Tensor:
    members = real.indices_of(label)
    order = torch.randperm(len(members), generator=seeding.generator(seed, "init", label))
    return members[order[:count]]


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
