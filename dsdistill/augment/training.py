"""The augmentation of a training batch: one operator for all images, then CutMix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.augment.dsa import Augmentation, Parameters
from dsdistill.augment.mix import CutMix, Mix


def augment_and_mix(
    images: Tensor,
    targets: Tensor,
    augmentation: Augmentation,
    cutmix: CutMix | None,
    classes: int,
    streams: Callable[[str], Sequence[torch.Generator]],
) -> tuple[Tensor, Tensor]:
    """Augment a batch as networks are trained: the operator is shared, its scalars are drawn per image.

    Args:
        images: float [B, C, S, S] in network space.
        targets: int64 [B], or probabilities [B, K].
        augmentation: of any operators; none leaves images as they are.
        cutmix: applied after it; None leaves it out.
        classes: K.
        streams: "augment" or "mix" to CPU generators, one for each network in training; the batch holds an
            equal share of images for each of them, in order.

    Returns:
        images [B, C, S, S] and targets, which are probabilities [B, K] where batches are mixed.
    """
    side = images.shape[-1]
    if augmentation.operators:
        draws = streams("augment")
        share = len(images) // len(draws)
        rows = [augmentation.draw(share, side, each, shared_operator=True) for each in draws]
        images = augmentation(images, Parameters.cat(rows))
    if cutmix:
        draws = streams("mix")
        share = len(images) // len(draws)
        mix = Mix.cat([cutmix.draw(share, side, each) for each in draws])
        if not targets.is_floating_point():
            dtype = torch.promote_types(images.dtype, torch.float32)
            targets = F.one_hot(targets, classes).to(dtype)
        images, targets = mix.images(images), mix.targets(targets)
    return images, targets
