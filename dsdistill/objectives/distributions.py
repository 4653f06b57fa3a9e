"""Distances between the feature distributions of real and synthetic images."""

from __future__ import annotations

import torch
from torch import Tensor


def class_sums(features: Tensor, owner: Tensor, classes: int) -> Tensor:
    """Sum features per class.

    Args:
        features: [B, D], any float dtype; summed in float32 or wider.
        owner: int64 [B] in [0, classes), the row each feature belongs to.
        classes: number of rows.

    Returns:
        [classes, D]; a row nobody owns is zero.
    """
    wide = features if features.dtype == torch.float64 else features.float()
    sums = wide.new_zeros(classes, features.shape[1])
    return sums.index_add(0, owner, wide)


def mean_discrepancy(real: Tensor, synthetic: Tensor) -> Tensor:
    """Squared distance of class-mean embeddings (Zhao & Bilen 2023, *Distribution Matching*, eq. 4).

    Args:
        real, synthetic: [K, D] mean embedding of each class.

    Returns:
        Scalar: **sum** over features and classes. The published pixel learning rates belong to sums.
    """
    return (real - synthetic).square().sum()
