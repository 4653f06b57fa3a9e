"""Distribution matching as its equations read: one class at a time, nothing shared, nothing clever.

Serves twice: as the naive version the engine's loss and gradient are compared with, and as the plain version
its speed is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def distribution_matching_loss(
    embed: Callable[[Tensor], Tensor],
    real: Sequence[Tensor],
    synthetic: Sequence[Tensor],
    augment: Sequence[Callable[[Tensor], Tensor]],
) -> Tensor:
    """Sum over classes of the squared distance between mean embeddings.

    Args:
        embed: [B, C, H, W] -> [B, D].
        real, synthetic: for each class its images, in network space.
        augment: for each class the one augmentation its real and synthetic images share.
    """
    total = torch.zeros((), dtype=synthetic[0].dtype)
    for images, learned, siamese in zip(real, synthetic, augment, strict=True):
        target = embed(siamese(images)).detach().mean(0)
        mean = embed(siamese(learned)).mean(0)
        total = total + ((target - mean) ** 2).sum()
    return total
