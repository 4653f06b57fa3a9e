"""Maximum mean discrepancy: two distributions compared by a kernel instead of by their means.

M3D (Zhang et al., AAAI 2024, *M3D: Dataset Condensation by Minimizing Maximum Mean Discrepancy*): for each
class

    MMD² = mean k(r, r') - 2 mean k(r, s) + mean k(s, s')

over all pairs of its real features r and synthetic features s (Gretton et al. 2012, *A Kernel Two-Sample
Test*, eq. 5). This is the biased estimate, which counts the pair of a sample with itself. Unlike the unbiased
one it is never negative, because it is a squared distance of means in the kernel's space, and it exists for a
single synthetic image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

import torch
from torch import Tensor

from dsdistill.errors import UserError
from dsdistill.objectives.distributions import mean_discrepancy
from dsdistill.objectives.precision import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Linear:
    """k(x, y) = x·y: the squared distance of means, which is distribution matching."""


@dataclass(frozen=True, kw_only=True)
class Polynomial:
    """k(x, y) = (x·y / D + 1)^d, by default of degree 3 as in the Kernel Inception Distance.

    Raises:
        UserError: if ``degree`` is below 1.
    """

    degree: int = 3

    def __post_init__(self) -> None:
        if self.degree < 1:
            raise UserError(f"a polynomial kernel has a degree of at least 1, not {self.degree}")


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


def squared_mmd(
    real: Float[Tensor, "B D"], synthetic: Float[Tensor, "n D"], kernel: Kernel
) -> Float[Tensor, ""]:
    """Measure the squared maximum mean discrepancy of one class.

    The pairs of real features are always counted, although their term has no gradient to the synthetic ones.
    Without it the value would not be a distance, and it costs little compared with the network.

    Args:
        real: [B, D], any float dtype; computed in float32 or wider.
        synthetic: [n, D].
        kernel: k.

    Returns:
        Scalar, at least 0 up to rounding; 0 where both are equal. Differentiable in both, but not through a
        bandwidth of the median rule.

    Raises:
        UserError: as `median_bandwidth`.

    >>> squared_mmd(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0]]), Linear())  # of the means 1 and 3
    tensor(4.)
    """
    real, synthetic = at_least_float32(real), at_least_float32(synthetic)
    pairs = (real, real), (real, synthetic), (synthetic, synthetic)
    match kernel:
        case Linear():
            return mean_discrepancy(real.mean(0), synthetic.mean(0))
        case Polynomial():
            scale = 1 / real.shape[1]
            values = [(scale * (x @ y.T) + 1.0) ** kernel.degree for x, y in pairs]
        case Gaussian():
            bandwidth = median_bandwidth(real) if kernel.bandwidth is None else kernel.bandwidth
            inverse = math.sqrt(0.5) / bandwidth
            values = [(-(inverse * _distances(x, y)).square()).exp() for x, y in pairs]
            if kernel.scaled:
                values = [bandwidth**2 * value for value in values]
        case _:
            assert_never(kernel)
    real_real, real_synthetic, synthetic_synthetic = values
    return real_real.mean() - 2 * real_synthetic.mean() + synthetic_synthetic.mean()


def squared_mmd_by_class(
    real: Iterable[Float[Tensor, "_ D"]], synthetic: Iterable[Float[Tensor, "_ D"]], kernel: Kernel
) -> Float[Tensor, " K"]:
    """Measure `squared_mmd` of each class, with as many samples as it has.

    Args:
        real, synthetic: for each class its features, [B_c, D] and [n_c, D]; for instance ``[K, n, D]`` or
            ``features.split(counts)``.
        kernel: the same for all; the median rule is applied to each class alone.

    Returns:
        [K].

    Raises:
        UserError: as `median_bandwidth`.

    >>> squared_mmd_by_class(torch.zeros(2, 5, 1), torch.tensor([[[1.0]], [[2.0]]]), Linear())
    tensor([1., 4.])
    """
    return torch.stack([squared_mmd(r, s, kernel) for r, s in zip(real, synthetic, strict=True)])


@torch.no_grad()
def median_bandwidth(features: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Return the median distance between two different rows of [B, D], the lower one of two; detached.

    The median rule (Gretton et al. 2012, section 8) for one class. At least 1e-6, so that a class whose rows
    are mostly equal has a kernel too.

    Raises:
        UserError: if there is one row only.

    >>> median_bandwidth(torch.tensor([[0.0], [1.0], [3.0]]))  # distances 1, 2 and 3
    tensor(2.)
    """
    if len(features) < 2:
        raise UserError("the median rule needs two real images per class; give the Gaussian a bandwidth")
    features = at_least_float32(features)
    rows, columns = torch.triu_indices(len(features), len(features), 1, device=features.device)
    return _distances(features, features)[rows, columns].median().clamp_min(1e-6)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean, [B, D] and [n, D] to [B, n], by one matrix product; the gradient at 0 is 0."""
    return torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist")
