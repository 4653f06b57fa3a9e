"""Distances between where networks look: spatial attention maps of real and synthetic images.

After Sajedi et al., *DataDAM: Efficient Dataset Distillation with Attention Matching* (ICCV 2023), in the
reductions of its released code, which the published pixel learning rates belong to.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.objectives.distributions import mean_discrepancy

SCALE = 100.0
"""What the released code multiplies both terms by; the paper's equations have no such factor."""


def attention(activation: Tensor, p: float) -> Tensor:
    """Return where a layer is active: Σ over channels of |F|^p, as a vector of unit length per image.

    Args:
        activation: [B, c, h, w], any float dtype; summed in float32 or wider.
        p: at least 1; the larger, the more the strongest channels count.

    Returns:
        [B, h·w], each row of L2 norm 1. A map of zeros stays zero, with a gradient of zero.
    """
    wide = activation if activation.dtype == torch.float64 else activation.float()
    return F.normalize(_power(wide, p).sum(1).flatten(1), dim=1, eps=1e-12)


def attention_discrepancy(real: Tensor, synthetic: Tensor) -> Tensor:
    """Measure how far the mean attention of each class lies apart (DataDAM's L_SAM).

    Squared differences add up, so that layers need not be told apart. Leave out the last, whose place
    `output_discrepancy` takes.

    Args:
        real, synthetic: [K, positions] mean attention of each class, all layers in one row.

    Returns:
        Scalar: 100 times the squared differences, **summed** over classes and positions.
    """
    return SCALE * mean_discrepancy(real, synthetic)


def output_discrepancy(real: Tensor, synthetic: Tensor, balance: float) -> Tensor:
    """Measure how far the mean embedding of each class lies apart (DataDAM's λ · L_MMD).

    Args:
        real, synthetic: [K, D] mean embedding of each class.
        balance: λ; 0.01 in the paper, 0.02 at high resolution.

    Returns:
        Scalar: 100 · λ times the squared differences, **summed** over features and classes.
    """
    return SCALE * balance * mean_discrepancy(real, synthetic)


def _power(activation: Tensor, p: float) -> Tensor:
    """Return |F|^p; a product where p allows it costs less than a power."""
    if p == 1:
        return activation.abs()
    if p == 2:
        return activation.square()
    if p == 4:
        return activation.square().square()
    return activation.abs().pow(p)
