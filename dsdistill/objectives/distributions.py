"""Distances between the feature distributions of real and synthetic images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dsdistill.objectives.precision import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Float, Int64


def class_sums(
    features: Float[Tensor, "B D"], owner: Int64[Tensor, " B"], classes: int
) -> Float[Tensor, "{classes} D"]:
    """Sum features per class.

    Args:
        features: [B, D], any float dtype; summed in float32 or wider.
        owner: int64 [B] in [0, classes), the row that each feature is added to.
        classes: number of rows.

    Returns:
        [classes, D]; a row without features is zero.

    >>> class_sums(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 2]), classes=3)
    tensor([[3.],
            [0.],
            [4.]])
    """
    features = at_least_float32(features)
    sums = features.new_zeros(classes, features.shape[1])
    return sums.index_add(0, owner, features)


def class_means(features: Float[Tensor, "B D"], counts: Sequence[int]) -> Float[Tensor, "K D"]:
    """Average features per class.

    Args:
        features: [B, D], class by class.
        counts: features of each of K classes, B in all; in one step where they are equal.

    Returns:
        [K, D].

    >>> class_means(torch.tensor([[1.0], [2.0], [6.0]]), [1, 2])
    tensor([[1.],
            [4.]])
    """
    if len(set(counts)) == 1:
        return features.unflatten(0, (len(counts), -1)).mean(1)
    return torch.stack([part.mean(0) for part in features.split(list(counts))])


def mean_discrepancy(real: Float[Tensor, "*K D"], synthetic: Float[Tensor, "*K D"]) -> Float[Tensor, ""]:
    """Squared distance of class-mean embeddings (Zhao & Bilen 2023, *Distribution Matching*, eq. 4).

    Args:
        real, synthetic: [K, D] mean embedding of each class, or [D] of one class.

    Returns:
        Scalar: **sum** over features and classes. The published pixel learning rates belong to sums.

    >>> mean_discrepancy(torch.zeros(2, 3), torch.ones(2, 3))
    tensor(6.)
    """
    return (real - synthetic).square().sum()
