"""Adaptive GSAM: a step to weights around which the loss is low, and flat.

Sharpness-aware minimisation (SAM) takes the gradient g₂ where the loss is worst nearby, at w + ε, instead of
g₁ at w. ASAM (Kwon et al. 2021) measures "nearby" relative to each weight; GSAM (Zhuang et al. 2022) also
pushes down the gap between the two losses. Du et al. 2023 (FTD) train the experts of trajectory matching so.

All arguments are the tensors of one network in one order, of one float dtype and device, without a graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EPSILON = 1e-12
"""Added to norms that divide, as in the code of GSAM and FTD."""


def perturbation(weights: Sequence[Tensor], gradient: Sequence[Tensor], rho: float) -> list[Tensor]:
    """Return ε = ρ · w² g / (‖|w| g‖ + 1e-12), to first order where the loss is worst.

    Of all ε with ‖ε / |w|‖ ≤ ρ it is the steepest (ASAM, section 3). Zero where a weight is.

    Args:
        weights: w.
        gradient: g = g₁, the gradient there.
        rho: ρ, the radius relative to the weights.
    """
    moves = torch._foreach_mul(list(weights), list(gradient))
    scale = rho / (_norm(moves) + EPSILON)  # |w| g and w g have one norm
    torch._foreach_mul_(moves, list(weights))
    torch._foreach_mul_(moves, scale)
    return list(moves)


def descent(gradient: Sequence[Tensor], perturbed: Sequence[Tensor], alpha: float) -> list[Tensor]:
    """Return d = g₂ - α g_⊥, where g_⊥ is the part of g₁ orthogonal to g₂ (GSAM, algorithm 1).

    g_⊥ = g₁ - cos(g₁, g₂) · ‖g₁‖ · g₂ / ‖g₂‖ with norms over all tensors together; going up along it lowers
    the loss's sharpness without raising the loss at w + ε.

    Args:
        gradient: g₁, at w.
        perturbed: g₂, at w + ε.
        alpha: α; 0 makes it ASAM.
    """
    one, two = _norm(gradient), _norm(perturbed)
    products = [torch.vdot(a.flatten(), b.flatten()) for a, b in zip(gradient, perturbed, strict=True)]
    cosine = torch.stack(products).sum() / (one * two + EPSILON)
    # With g_⊥ written out, what is left of g₂ is a multiple of it.
    steps = torch._foreach_mul(list(perturbed), 1 + alpha * cosine * one / (two + EPSILON))
    torch._foreach_add_(steps, list(gradient), alpha=-alpha)
    return list(steps)


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of all tensors together."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
