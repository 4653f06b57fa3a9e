"""Attention matching as its equations read: first as the released code of DataDAM runs it, then in loops.

The plain version is the one the engine's speed is compared with: eager, float32, all classes in one forward
pass for the real images and one for the synthetic ones. The loops are what both are tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dsdistill.networks.base import Network


def attention_matching_loss(
    network: Network,
    real: Sequence[Tensor],
    synthetic: Sequence[Tensor],
    augment: Sequence[Callable[[Tensor], Tensor]],
    p: float,
    balance: float,
) -> Tensor:
    """All layers but the last by attention, the embedding in place of the last.

    Args:
        network: frozen, in train mode; with batch normalisation the classes share their statistics.
        real, synthetic: for each class its images, in network space, equally many in every class.
        augment: for each class the one augmentation its real and synthetic images share.
        p: the power of the attention.
        balance: the weight λ of the output term.
    """
    classes = len(real)
    together_real = torch.cat([siamese(images) for images, siamese in zip(real, augment, strict=True)])
    together = torch.cat([siamese(images) for images, siamese in zip(synthetic, augment, strict=True)])
    maps_real, output_real = network.trace(together_real)
    maps, output = network.trace(together)
    total = together.new_zeros(())
    for theirs, ours in zip(maps_real[:-1], maps[:-1], strict=True):
        mean_real = attention(theirs.detach(), p).reshape(classes, len(real[0]), -1).mean(1)
        mean = attention(ours, p).reshape(classes, len(synthetic[0]), -1).mean(1)
        total = total + 100 * torch.sum((mean_real - mean) ** 2)
    mean_real = output_real.detach().reshape(classes, len(real[0]), -1).mean(1)
    mean = output.reshape(classes, len(synthetic[0]), -1).mean(1)
    return total + 100 * balance * torch.sum((mean_real - mean) ** 2)


def attention(activation: Tensor, p: float) -> Tensor:
    powers = torch.abs(activation) ** p
    return torch.nn.functional.normalize(powers.sum(1).reshape(len(activation), -1), dim=1)


def looped_attention(activation: Tensor, p: float) -> Tensor:
    """One image and one position after the other; no map may be all zero."""
    rows = []
    for image in activation:
        channels, height, width = image.shape
        sums = [
            torch.stack([image[k, i, j].abs() ** p for k in range(channels)]).sum()
            for i in range(height)
            for j in range(width)
        ]
        length = torch.stack([a * a for a in sums]).sum().sqrt()
        rows.append(torch.stack([a / length for a in sums]))
    return torch.stack(rows)


def looped_terms(
    real: tuple[Sequence[Tensor], Tensor],
    synthetic: tuple[Sequence[Tensor], Tensor],
    real_owner: Sequence[int],
    owner: Sequence[int],
    p: float,
    balance: float,
) -> tuple[Tensor, Tensor]:
    """Both terms from traces, one class after the other, for classes of any size.

    Args:
        real, synthetic: what ``trace`` returned for each side.
        real_owner, owner: the class of each image.
    """
    attended, output = real[1].new_zeros(()), real[1].new_zeros(())
    for label in sorted(set(owner)):
        theirs = [i for i, other in enumerate(real_owner) if other == label]
        ours = [i for i, other in enumerate(owner) if other == label]
        for a, b in zip(real[0][:-1], synthetic[0][:-1], strict=True):
            difference = looped_attention(a[theirs], p).mean(0) - looped_attention(b[ours], p).mean(0)
            attended = attended + 100 * (difference @ difference)
        difference = real[1][theirs].mean(0) - synthetic[1][ours].mean(0)
        output = output + 100 * balance * (difference @ difference)
    return attended, output
