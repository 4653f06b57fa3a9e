"""Improved distribution matching as its equations read: one class at a time, nothing shared, nothing clever.

Serves twice: as the naive version the engine's loss and gradient are compared with, and as the plain version
its speed is compared with. Like the released code it passes the synthetic images through the network twice,
once for their features and once for their logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.networks.base import Network


def improved_matching_losses(
    network: Network,
    real: Sequence[Tensor],
    synthetic: Sequence[Tensor],
    augment: Sequence[Callable[[Tensor], Tensor]],
    weight: float,
) -> list[Tensor]:
    """The loss of every class, each of which steps the pixels on its own.

    Args:
        network: one of the queue, in eval mode.
        real: for each class its images, in network space.
        synthetic: for each class its decoded images, in network space, with a graph to the stored ones.
        augment: for each class the one augmentation its real and synthetic images share.
        weight: of the cross-entropy; the paper's weight times the network's accuracy in percent.
    """
    return [
        class_loss(network, images, learned, siamese, label, weight)
        for label, (images, learned, siamese) in enumerate(zip(real, synthetic, augment, strict=True))
    ]


def class_loss(
    network: Network,
    real: Tensor,
    synthetic: Tensor,
    augment: Callable[[Tensor], Tensor],
    label: int,
    weight: float,
) -> Tensor:
    """The loss of one class: the distance of mean features, and the cross-entropy of the synthetic images."""
    learned = augment(synthetic)
    target = network.embed(augment(real)).detach().mean(0)
    mean = network.embed(learned).mean(0)
    logits = network(learned)
    labels = torch.full((len(learned),), label, device=learned.device)
    return ((target - mean) ** 2).sum() + weight * F.cross_entropy(logits, labels)
