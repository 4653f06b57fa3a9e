"""The batches that a supply trains its networks on: real images, or those being distilled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dsdistill.augment.dsa import Augmentation
from dsdistill.augment.mix import CutMix
from dsdistill.augment.training import Transform, augment_and_mix
from dsdistill.compute.learner import Learner
from dsdistill.data.batches import RealBatches
from dsdistill.seeding import generator
from dsdistill.synthetic.set import SyntheticSet

LabelledBatch = tuple[Tensor, Tensor]
"""Images [B, C, H, W] in network space; labels int64 [B] or probabilities [B, K]."""


@dataclass(frozen=True, eq=False)
class TrainingBatches:
    """Batches for networks in training.

    Attributes:
        real: the training images.
        synthetic: the images being distilled.
        augmentation: the engine's; drawn anew for every image. Cutout is left out where CutMix is on.
        learner: of the network that is trained.
    """

    real: RealBatches
    synthetic: SyntheticSet | None
    augmentation: Augmentation
    learner: Learner

    def synthetic_epochs(
        self, iteration: int, epochs: int, batch_size: int, cutmix: float
    ) -> Iterator[LabelledBatch]:
        """Yield shuffled batches of the synthetic set, epoch by epoch, from the stream "inner"."""
        synthetic, seed = self.synthetic, self.real.seed
        assert synthetic is not None
        with torch.no_grad():
            images = synthetic.of(torch.arange(self.real.task.num_classes))
        labels = synthetic.labels[synthetic.origins().to(images.device)]
        for epoch in range(epochs):
            order = torch.randperm(len(images), generator=generator(seed, "inner", iteration, epoch))
            for batch, rows in enumerate(order.split(batch_size)):
                positions = rows.to(images.device, non_blocking=images.is_cuda)
                matched = synthetic.batch(images[positions])
                targets = labels[positions].repeat(len(matched) // len(positions))
                yield self._augmented(matched, targets, cutmix, "inner", iteration, epoch, batch)

    def real_stream(
        self, stream: str, start: int, count: int, batch_size: int, cutmix: float
    ) -> Iterator[LabelledBatch]:
        """Yield batches number ``start`` to ``start + count`` of one shuffled stream of real images.

        Every image comes once before any comes twice; what is left at the end of an epoch is dropped.
        """
        images = len(self.real.data)
        size = min(batch_size, images)
        shuffled, order = -1, torch.empty(0)
        for number in range(start, start + count):
            epoch, batch = divmod(number, images // size)
            if epoch != shuffled:
                shuffled = epoch
                order = torch.randperm(images, generator=generator(self.real.seed, stream, epoch))
            rows = order[batch * size : (batch + 1) * size]
            yield self._augmented(self.real.images(rows), self.real.labels(rows), cutmix, stream, number)

    def random_real(
        self, iteration: int, network: int, count: int, batch_size: int
    ) -> Iterator[LabelledBatch]:
        """Yield batches for the n-th network of an iteration, each drawn from all images; not augmented."""
        for batch in range(count):
            stream = generator(self.real.seed, "queue-batches", iteration, network, batch)
            rows = torch.randperm(len(self.real.data), generator=stream)[:batch_size]
            yield self.real.images(rows), self.real.labels(rows)

    def statistics_batch(self, iteration: int, per_class: int = 16) -> Tensor:
        """Return real images of every class, from which batch normalisation takes its statistics."""
        labels = range(self.real.task.num_classes)
        rows = [self.real.positions(label, per_class, iteration, "statistics") for label in labels]
        return self.real.images(torch.cat(rows))

    def _augmented(
        self, images: Tensor, labels: Tensor, cutmix: float, stream: str, *number: int
    ) -> LabelledBatch:
        augmentation = self.augmentation.without("cutout") if cutmix else self.augmentation
        mix = CutMix(probability=cutmix) if cutmix else None

        def streams(kind: str) -> list[torch.Generator]:
            return [generator(self.real.seed, f"{stream}-{kind}", *number)]

        return augment_and_mix(
            images, labels, Transform(augmentation), mix, self.real.task.num_classes, streams
        )
