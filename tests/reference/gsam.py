"""Adaptive GSAM as its equations read: one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Gradient = Callable[[Sequence[Tensor]], Sequence[Tensor]]


def norm(tensors: Sequence[Tensor]) -> float:
    return sum(float((tensor**2).sum()) for tensor in tensors) ** 0.5


def climb(weights: Sequence[Tensor], gradient: Sequence[Tensor], rho: float) -> list[Tensor]:
    """ε = ρ w² g / ‖|w| g‖, a step to where the loss is worst."""
    length = norm([weight.abs() * slope for weight, slope in zip(weights, gradient, strict=True)])
    return [
        rho * weight**2 * slope / (length + 1e-12) for weight, slope in zip(weights, gradient, strict=True)
    ]


def combined(first: Sequence[Tensor], second: Sequence[Tensor], alpha: float) -> list[Tensor]:
    """g₂ - α g_⊥, g_⊥ being what g₁ has that g₂ has not."""
    inner = sum(float((a * b).sum()) for a, b in zip(first, second, strict=True))
    cosine = inner / (norm(first) * norm(second) + 1e-12)
    found = []
    for a, b in zip(first, second, strict=True):
        orthogonal = a - cosine * norm(first) * b / (norm(second) + 1e-12)
        found.append(b - alpha * orthogonal)
    return found


def direction(weights: Sequence[Tensor], gradient: Gradient, rho: float, alpha: float) -> list[Tensor]:
    """What SGD steps against.

    Args:
        gradient: of the loss, at any weights.
    """
    first = [slope.detach() for slope in gradient(weights)]
    with torch.no_grad():
        moved = [weight + up for weight, up in zip(weights, climb(weights, first, rho), strict=True)]
    return combined(first, gradient(moved), alpha)
