"""Distances between where networks look: spatial attention maps of real and synthetic images.

After Sajedi et al., *DataDAM: Efficient Dataset Distillation with Attention Matching* (ICCV 2023). Sums and
means are those of its released code, because the published pixel learning rates belong to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from dsdistill.objectives.distributions import mean_discrepancy
from dsdistill.objectives.precision import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Float

SCALE = 100.0
"""Factor of both terms in the released code; the paper's equations have none."""


def attention(activation: Float[Tensor, "B c h w"], p: float) -> Float[Tensor, "B h*w"]:
    """Return where a layer is active: Σ over channels of |F|^p, as a vector of unit length per image.

    Args:
        activation: [B, c, h, w], any float dtype; summed in float32 or wider.
        p: at least 1; a larger one gives the strongest channels more weight.

    Returns:
        [B, h·w], each row of L2 norm 1. A map of zeros stays zero, with a gradient of zero.

    >>> attention(torch.tensor([[[[3.0, 0.0], [0.0, 4.0]]]]), p=1)
    tensor([[0.6000, 0.0000, 0.0000, 0.8000]])
    """
    return F.normalize(_power(at_least_float32(activation), p).sum(1).flatten(1), dim=1, eps=1e-12)


def attention_discrepancy(
    real: Float[Tensor, "K positions"], synthetic: Float[Tensor, "K positions"]
) -> Float[Tensor, ""]:
    """Measure how far apart the mean attention of each class is (DataDAM's L_SAM).

    The squared differences of all layers add up, so their maps may be concatenated. Leave out the last
    layer: `output_discrepancy` takes its place.

    Args:
        real, synthetic: [K, positions] mean attention of each class, all layers in one row.

    Returns:
        Scalar: 100 times the squared differences, **summed** over classes and positions.

    >>> attention_discrepancy(torch.zeros(1, 2), torch.tensor([[0.1, 0.0]]))
    tensor(1.0000)
    """
    return SCALE * mean_discrepancy(real, synthetic)


def output_discrepancy(
    real: Float[Tensor, "K D"], synthetic: Float[Tensor, "K D"], balance: float
) -> Float[Tensor, ""]:
    """Measure how far apart the mean embedding of each class is (DataDAM's λ · L_MMD).

    Args:
        real, synthetic: [K, D] mean embedding of each class.
        balance: λ; 0.01 in the paper, 0.02 at high resolution.

    Returns:
        Scalar: 100 · λ times the squared differences, **summed** over features and classes.

    >>> output_discrepancy(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), balance=0.01)
    tensor(1.)
    """
    return SCALE * balance * mean_discrepancy(real, synthetic)


def _power(activation: Tensor, p: float) -> Tensor:
    """Return |F|^p, by products where p allows it: they cost less than a power."""
    if p == 1:
        return activation.abs()
    if p == 2:
        return activation.square()
    if p == 4:
        return activation.square().square()
    return activation.abs().pow(p)
