"""Maximum mean discrepancy: distributions compared through a kernel instead of through their means.

M3D (Zhang et al., AAAI 2024, *M3D: Dataset Condensation by Minimizing Maximum Mean Discrepancy*): for each
class

    MMD² = mean k(r, r') - 2 mean k(r, s) + mean k(s, s')

over all pairs of its real features r and synthetic features s (Gretton et al. 2012, *A Kernel Two-Sample
Test*, eq. 5). This is the biased estimate, which counts a sample's pair with itself. It is the squared
length of a difference of means in the kernel's space and so never negative, where the unbiased one may be,
and it exists for a single synthetic image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from dsdistill.errors import UserError
from dsdistill.objectives.distributions import mean_discrepancy


@dataclass(frozen=True)
class Linear:
    """k(x, y) = x·y: the squared distance of means, which is distribution matching."""


@dataclass(frozen=True, kw_only=True)
class Polynomial:
    """k(x, y) = (γ x·y + c)^d, by default (x·y / D + 1)³ as in the Kernel Inception Distance.

    Raises:
        UserError: if ``degree`` is below 1 or a coefficient negative, which makes it no kernel.
    """

    degree: int = 3
    gamma: float | None = None
    """γ; None for 1 / D."""
    offset: float = 1.0
    """c."""

    def __post_init__(self) -> None:
        if self.degree < 1:
            raise UserError(f"a polynomial kernel has a degree of at least 1, not {self.degree}")
        if self.offset < 0 or (self.gamma or 0.0) < 0:
            raise UserError("a polynomial kernel needs a gamma and an offset of at least 0")


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """k(x, y) = exp(-‖x - y‖² / 2s²).

    Raises:
        UserError: if ``bandwidth`` is not positive.
    """

    bandwidth: float | None = None
    """s; None for each class's `median_bandwidth`."""
    scaled: bool = False
    """Multiply the discrepancy by s²: for a large s that is the squared distance of means, so that learning
    rates of distribution matching hold whatever the scale of the features."""

    def __post_init__(self) -> None:
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise UserError(f"the bandwidth of a Gaussian kernel is positive, not {self.bandwidth}")


Kernel = Linear | Polynomial | Gaussian


def squared_mmd(real: Tensor, synthetic: Tensor, kernel: Kernel) -> Tensor:
    """Measure the squared maximum mean discrepancy of one class.

    The pairs of real features are always counted, though they do not move the synthetic ones: without them
    the value means nothing, and they cost little beside the network that made the features.

    Args:
        real: [B, D], any float dtype; computed in float32 or wider.
        synthetic: [n, D].
        kernel: which to compare through.

    Returns:
        Scalar, at least 0 up to rounding; 0 where both are the same. Differentiable in both, but not through
        a bandwidth found by the median rule.

    Raises:
        UserError: as `median_bandwidth`.
    """
    real, synthetic = _wide(real), _wide(synthetic)
    pairs = (real, real), (real, synthetic), (synthetic, synthetic)
    match kernel:
        case Linear():
            return mean_discrepancy(real.mean(0), synthetic.mean(0))
        case Polynomial():
            gamma = 1 / real.shape[1] if kernel.gamma is None else kernel.gamma
            within, across, ours = ((gamma * (x @ y.T) + kernel.offset) ** kernel.degree for x, y in pairs)
        case Gaussian():
            bandwidth = median_bandwidth(real) if kernel.bandwidth is None else kernel.bandwidth
            scale = math.sqrt(0.5) / bandwidth
            within, across, ours = ((-(scale * _distances(x, y)).square()).exp() for x, y in pairs)
            if kernel.scaled:
                within, across, ours = (bandwidth**2 * each for each in (within, across, ours))
        case _:
            assert_never(kernel)
    return within.mean() - 2 * across.mean() + ours.mean()


def squared_mmd_by_class(real: Iterable[Tensor], synthetic: Iterable[Tensor], kernel: Kernel) -> Tensor:
    """Measure `squared_mmd` of each class, with as many samples as it has.

    Args:
        real, synthetic: for each class its features, [B_c, D] and [n_c, D]; for instance ``[K, n, D]`` or
            ``features.split(counts)``.
        kernel: the same for all; the median rule is applied to each class alone.

    Returns:
        [K].

    Raises:
        UserError: as `median_bandwidth`.
    """
    return torch.stack([squared_mmd(r, s, kernel) for r, s in zip(real, synthetic, strict=True)])


@torch.no_grad()
def median_bandwidth(features: Tensor) -> Tensor:
    """Return the median distance between two different rows of [B, D], the lower one of two; detached.

    The median rule (Gretton et al. 2012, section 8) for one class. Where most rows are equal it is not 0
    but a number so small that only equal features are alike.

    Raises:
        UserError: if there is one row only.
    """
    if len(features) < 2:
        raise UserError("the median rule needs two real images per class; give the Gaussian a bandwidth")
    features = _wide(features)
    distinct = torch.ones(len(features), len(features), dtype=torch.bool, device=features.device).triu(1)
    return _distances(features, features)[distinct].median().clamp_min(1e-6)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean, [B, D] and [n, D] to [B, n], by one matrix product; the slope at 0 is 0."""
    return torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist")


def _wide(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()
