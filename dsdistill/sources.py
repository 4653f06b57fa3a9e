"""Sources: what an engine may draw from. Every draw is a function of (seed, stream, iteration)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dsdistill import seeding
from dsdistill.augment.dsa import Augmentation, Parameters
from dsdistill.data.real import RealDataset, Task
from dsdistill.networks.embedder import Embedder
from dsdistill.supply import Supply


class Sources:
    """Real batches, augmentation parameters and networks for the classes and the iteration at hand.

    Attributes:
        task: what is distilled.
        data: the training images.
        supply: where networks come from.
        embedder: computes features of the supply's network.
        augmentation: applied alike to real and synthetic images (siamese).
        iteration: set by the loop.
        classes: int64 [k] label values this pass is about, on the CPU; set by the loop.
    """

    part_bytes = 1 << 25
    """Real images prepared at once: enough for many passes of a network, little beside its memory."""

    def __init__(
        self,
        task: Task,
        real: RealDataset,
        supply: Supply,
        embedder: Embedder,
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.task = task
        self.supply = supply
        self.augmentation = augmentation
        self.iteration = 0
        self.classes = torch.arange(task.num_classes)
        self.data = real
        self._preprocess = task.preprocess.to(device, dtype)
        self._seed = seed
        self._device = device
        self._dtype = dtype
        self.embedder = embedder
        self._drawn_at = -1

    def network(self) -> Embedder:
        """Return this iteration's network, the same one for every pass over its classes."""
        if self._drawn_at != self.iteration:
            self.supply.draw(self._seed, self.iteration)
            self._drawn_at = self.iteration
        return self.embedder

    def siamese(self) -> Parameters:
        """Draw this iteration's augmentation: one row for each of ``classes``, on the CPU."""
        stream = seeding.generator(self._seed, "augment", self.iteration)
        rows = self.augmentation.draw(self.task.num_classes, self.task.size, stream, shared_operator=False)
        return rows[self.classes]

    def counts(self, per_class: int) -> Tensor:
        """Return how many images `real` gives of each of ``classes``, int64 [k]: small classes have fewer."""
        return self.data.counts.cpu()[self.classes].clamp(max=per_class)

    def real(self, per_class: int, parameters: Parameters) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw real images of each of ``classes`` without replacement, preprocessed and augmented.

        Args:
            per_class: images of a class; all of them where it has fewer.
            parameters: k rows, from `siamese`.

        Yields:
            images [b, C, H, W] and int64 [b], the position in ``classes`` of each; on the device. Parts are
            bounded in memory and in class order, however many images there are in all; one part holds them
            all where the network couples the samples of a batch.
        """
        index = torch.cat([self.indices(int(label), per_class) for label in self.classes])
        owner = torch.arange(len(self.classes)).repeat_interleave(self.counts(per_class))
        passes = self.part_bytes // (4 * self.task.channels * self.task.size**2) // self.embedder.chunk
        whole = self.supply.network.couples_samples
        part = len(index) if whole else max(1, passes) * self.embedder.chunk
        for chosen, owners in zip(index.split(part), owner.split(part), strict=True):
            images = self._preprocess(self.data.unit(chosen).to(self._device, self._dtype))
            yield self.augmentation(images, parameters[owners]), owners.to(self._device)

    def indices(self, label: int, per_class: int) -> Tensor:
        """Draw positions of real images of one class in ``data``, without replacement."""
        members = self.data.indices_of(label)
        stream = seeding.generator(self._seed, "batches", self.iteration, label)
        return members[torch.randperm(len(members), generator=stream)[:per_class].to(members.device)]
