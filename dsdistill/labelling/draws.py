"""The views of a set: every draw is a function of (seed, epoch, batch), made before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsdistill.augment.crops import Crops
from dsdistill.augment.mix import Mix
from dsdistill.labelling.config import LabellingConfig
from dsdistill.seeding import generator
from dsdistill.synthetic.views import ViewBatch


@dataclass(frozen=True)
class ViewDraws:
    """Draws the batches of views, epoch by epoch.

    Attributes:
        config: which views.
        images: N, the training images of the set.
        size: their height and width in pixels.
        flip: whether half of the views are mirrored.
    """

    config: LabellingConfig
    images: int
    size: int
    flip: bool

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch, before some are left out."""
        return -(-self.images // self.config.batch_size)

    def kept(self) -> Tensor:
        """Return which batches are kept, bool [epochs, batches]; of a share at least one."""
        count = self.config.views * self.per_epoch
        kept = torch.ones(count, dtype=torch.bool)
        if self.config.keep < 1:
            order = torch.randperm(count, generator=generator(self.config.seed, "views-keep"))
            kept[order[max(1, round(self.config.keep * count)) :]] = False
        return kept.view(self.config.views, self.per_epoch)

    def epoch(self, epoch: int) -> list[ViewBatch]:
        """Return the batches of an epoch, counted from 0: every image once, in a new order.

        The last batch is smaller where the batch size does not divide the number of images.
        """
        seed, size = self.config.seed, self.config.batch_size
        order = torch.randperm(self.images, generator=generator(seed, "views-order", epoch))
        boxes = self.config.crop.draw(self.images, self.size, generator(seed, "views-crops", epoch)).boxes
        flips = torch.zeros(self.images, dtype=torch.bool)
        if self.flip:
            flips = torch.rand(self.images, generator=generator(seed, "views-flips", epoch)) < 0.5
        parts = zip(order.split(size), boxes.split(size), flips.split(size), strict=True)
        return [
            ViewBatch(rows, Crops(size=self.size, boxes=crops), mirrored, self._mix(len(rows), epoch, batch))
            for batch, (rows, crops, mirrored) in enumerate(parts)
        ]

    def _mix(self, count: int, epoch: int, batch: int) -> Mix:
        if self.config.mix is None:
            return Mix.none(count, self.size)
        return self.config.mix.draw(count, self.size, generator(self.config.seed, "views-mix", epoch, batch))
