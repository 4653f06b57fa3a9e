"""The augmentation of a training batch: crops, one operator for all images, then mixing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.augment.crops import Crops, RandomResizedCrop
from dsdistill.augment.dsa import Augmentation, Parameters
from dsdistill.augment.mix import CutMix, Mix, Mixup
from dsdistill.objectives.precision import working_dtype

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

Streams: TypeAlias = Callable[[str], Sequence[torch.Generator]]
"""From the kind of a draw ("patches", "crop", "cells", "augment", "mix") to CPU generators, one for each
network in training. A batch has an equal share of images for each of them, in order."""


@dataclass(frozen=True)
class Transform:
    """What happens to the images of a training batch, before they are mixed.

    Attributes:
        augmentation: of any operators; none leaves images as they are.
        crop: enlarges a random box of each image, or None.
        patches: F: columns and then rows of F×F patches are permuted, the same way in all images (RDED); 1
            for none.
        cells: g: one of the g×g cells of each image is enlarged to the whole, or a crop of it alone (PCA); 1
            for none.
    """

    augmentation: Augmentation
    crop: RandomResizedCrop | None = None
    patches: int = 1
    cells: int = 1

    def __call__(self, images: Float[Tensor, "B C S S"], streams: Streams) -> Float[Tensor, "B C S S"]:
        """Transform images in network space. All share an operator, its scalars are drawn per image."""
        side = images.shape[-1]
        if self.patches > 1:
            parts = images.split(len(images) // len(draws := streams("patches")))
            images = torch.cat([_shuffled(*pair, self.patches) for pair in zip(parts, draws, strict=True)])
        if self.crop or self.cells > 1:
            images = self._crops(len(images), side, streams)(images)
        if self.augmentation.operators:
            draws = streams("augment")
            share = len(images) // len(draws)
            rows = [self.augmentation.draw(share, side, each, shared_operator=True) for each in draws]
            images = self.augmentation(images, Parameters.cat(rows))
        return images

    def _crops(self, count: int, side: int, streams: Streams) -> Crops:
        """Draw a box of each image, inside one of its cells."""
        side //= self.cells
        whole = RandomResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0))
        draws = streams("crop")
        share, crop = count // len(draws), self.crop or whole
        crops = Crops.cat([crop.draw(share, side, each) for each in draws])
        if self.cells == 1:
            return crops
        places = [torch.randint(self.cells**2, (share,), generator=each) for each in streams("cells")]
        return crops.in_cells(torch.cat(places), self.cells)


def draw_mix(mixing: CutMix | Mixup, count: int, side: int, streams: Streams) -> Mix:
    """Draw how ``count`` images of one batch are mixed."""
    draws = streams("mix")
    return Mix.cat([mixing.draw(count // len(draws), side, each) for each in draws])


def augment_and_mix(
    images: Float[Tensor, "B C S S"],
    targets: Int64[Tensor, " B"] | Float[Tensor, "B K"],
    transform: Transform,
    cutmix: CutMix | None,
    classes: int,
    streams: Streams,
) -> tuple[Float[Tensor, "B C S S"], Int64[Tensor, " B"] | Float[Tensor, "B K"]]:
    """Augment a training batch and mix it: all images share the operator, its scalars are drawn per image.

    Args:
        images: float [B, C, S, S] in network space.
        targets: int64 [B], or probabilities [B, K].
        transform: of the images.
        cutmix: applied after it, or None.
        classes: K.

    Returns:
        Images [B, C, S, S], and targets, which are probabilities [B, K] if batches are mixed.
    """
    images = transform(images, streams)
    if cutmix:
        mix = draw_mix(cutmix, len(images), images.shape[-1], streams)
        if not targets.is_floating_point():
            targets = F.one_hot(targets, classes).to(working_dtype(images.dtype))
        images, targets = mix.images(images), mix.targets(targets)
    return images, targets


def _shuffled(images: Tensor, generator: torch.Generator, patches: int) -> Tensor:
    """Permute the columns of patches, then the rows; what is left over at the end stays."""
    side = images.shape[-1] // patches
    for dim in (3, 2):
        strips = list(images.split(side, dim))
        order = torch.randperm(patches, generator=generator).tolist()
        images = torch.cat([strips[each] for each in order] + strips[patches:], dim)
    return images
