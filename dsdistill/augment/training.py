"""The augmentation of a training batch: one operator for all images, then CutMix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.augment.dsa import Augmentation, Parameters
from dsdistill.augment.mix import CutMix, Mix
from dsdistill.objectives.precision import working_dtype

if TYPE_CHECKING:
    from jaxtyping import Float, Int64


def augment_and_mix(
    images: Float[Tensor, "B C S S"],
    targets: Int64[Tensor, " B"] | Float[Tensor, "B K"],
    augmentation: Augmentation,
    cutmix: CutMix | None,
    classes: int,
    streams: Callable[[str], Sequence[torch.Generator]],
) -> tuple[Float[Tensor, "B C S S"], Int64[Tensor, " B"] | Float[Tensor, "B K"]]:
    """Augment a training batch: all images share the operator, its scalars are drawn per image.

    Args:
        images: float [B, C, S, S] in network space.
        targets: int64 [B], or probabilities [B, K].
        augmentation: of any operators; none leaves images as they are.
        cutmix: applied after it, or None.
        classes: K.
        streams: "augment" or "mix" to CPU generators, one for each network in training; the batch has an
            equal share of images for each of them, in order.

    Returns:
        Images [B, C, S, S], and targets, which are probabilities [B, K] if batches are mixed.
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
            targets = F.one_hot(targets, classes).to(working_dtype(images.dtype))
        images, targets = mix.images(images), mix.targets(targets)
    return images, targets
