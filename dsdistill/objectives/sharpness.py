"""Adaptive GSAM: a step towards weights around which the loss is low and flat.

Sharpness-aware minimisation (SAM) replaces the gradient g₁ at the weights w by the gradient g₂ at w + ε,
where the loss is largest nearby. ASAM (Kwon et al. 2021) measures "nearby" relative to each weight. GSAM
(Zhuang et al. 2022) also reduces the gap between the two losses. Du et al. 2023 (FTD) train experts for
trajectory matching this way.

All arguments are the tensors of one network in one order, of one float dtype and device, without a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

EPSILON = 1e-12
"""Added to norms that divide, as in the code of GSAM and FTD."""


def perturbation(
    weights: Sequence[Float[Tensor, "*_"]], gradient: Sequence[Float[Tensor, "*_"]], rho: float
) -> list[Tensor]:
    """Return ε = ρ · w² g / (‖|w| g‖ + 1e-12): to first order, the loss is largest at w + ε.

    Of all ε with ‖ε / |w|‖ ≤ ρ this one raises the loss most (ASAM, section 3). It is zero where w is zero.

    Args:
        weights: w.
        gradient: g = g₁, the gradient at w.
        rho: ρ, the radius relative to the weights.

    >>> perturbation([torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 2.0])], rho=0.5)
    [tensor([0.3000, 0.8000])]
    """
    moves = torch._foreach_mul(list(weights), list(gradient))
    scale = rho / (_norm(moves) + EPSILON)  # |w| g and w g have one norm
    torch._foreach_mul_(moves, list(weights))
    torch._foreach_mul_(moves, scale)
    return list(moves)


def descent(
    gradient: Sequence[Float[Tensor, "*_"]], perturbed: Sequence[Float[Tensor, "*_"]], alpha: float
) -> list[Tensor]:
    """Return d = g₂ - α g_⊥, where g_⊥ is the part of g₁ orthogonal to g₂ (GSAM, algorithm 1).

    g_⊥ = g₁ - cos(g₁, g₂) · ‖g₁‖ · g₂ / ‖g₂‖ with norms over all tensors together. A step up along g_⊥
    lowers the sharpness and leaves the loss at w + ε as it is.

    Args:
        gradient: g₁, at w.
        perturbed: g₂, at w + ε.
        alpha: α; 0 makes it ASAM.

    >>> descent([torch.tensor([1.0, 1.0])], [torch.tensor([2.0, 0.0])], alpha=0.5)
    [tensor([ 2.0000, -0.5000])]
    """
    one, two = _norm(gradient), _norm(perturbed)
    products = [torch.vdot(a.flatten(), b.flatten()) for a, b in zip(gradient, perturbed, strict=True)]
    cosine = torch.stack(products).sum() / (one * two + EPSILON)
    # With g_⊥ written out, d = (1 + α cos ‖g₁‖ / ‖g₂‖) g₂ - α g₁.
    steps = torch._foreach_mul(list(perturbed), 1 + alpha * cosine * one / (two + EPSILON))
    torch._foreach_add_(steps, list(gradient), alpha=-alpha)
    return list(steps)


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of all tensors together."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
