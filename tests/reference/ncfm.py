"""Characteristic functions and maximum mean discrepancy as their equations read: one pair at a time.

At the end NCFM's loss of one class as its released code computes it, with which speed is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def characteristic_function(samples: Tensor, frequency: Tensor) -> Tensor:
    """Average exp(i t·f) over the samples [n, D], at one frequency [D]: a complex scalar."""
    total = torch.zeros((), dtype=torch.complex128)
    for sample in samples:
        total = total + torch.exp(1j * (sample * frequency).sum())
    return total / len(samples)


def discrepancy_at(real: Tensor, synthetic: Tensor, alpha: float, beta: float) -> Tensor:
    """Compare two complex scalars: √(α amplitude + β phase), the phase at least 1e-12."""
    amplitude = (real.abs() - synthetic.abs()) ** 2
    products = real.real * synthetic.real + real.imag * synthetic.imag
    phase = 2 * (real.abs() * synthetic.abs() - products)
    return torch.sqrt(alpha * amplitude + beta * phase.clamp(min=1e-12))


def characteristic_discrepancy(
    real: Sequence[Tensor],
    synthetic: Sequence[Tensor],
    frequencies: Sequence[Tensor],
    alpha: float = 0.5,
    beta: float = 0.5,
) -> Tensor:
    """Average the discrepancy over frequencies, for each class: [K].

    Args:
        real, synthetic: for each class its features, [n, D].
        frequencies: for each class [F, D].
    """
    values = []
    for ours, theirs, drawn in zip(synthetic, real, frequencies, strict=True):
        at = [
            discrepancy_at(characteristic_function(theirs, t), characteristic_function(ours, t), alpha, beta)
            for t in drawn
        ]
        values.append(sum(at[1:], start=at[0]) / len(at))
    return torch.stack(values)


def squared_mmd(real: Tensor, synthetic: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Average a kernel over all pairs within and across two samples [n, D]: mean rr - 2 mean rs + mean ss."""

    def mean(xs: Tensor, ys: Tensor) -> Tensor:
        values = [kernel(x, y) for x in xs for y in ys]
        return sum(values[1:], start=values[0]) / len(values)

    return mean(real, real) - 2 * mean(real, synthetic) + mean(synthetic, synthetic)


def plain_class_loss(network: nn.Module, real: Tensor, synthetic: Tensor, frequencies: Tensor) -> Tensor:
    """One class's loss as the released code computes it: all phases of a part at once, each product twice.

    Args:
        network: offers ``embed``.
        real, synthetic: augmented images [B, C, H, W] of the class, in network space.
        frequencies: [F, D].
    """
    with torch.no_grad():
        theirs = F.normalize(network.embed(real), dim=1)  # type: ignore[operator]
    ours = F.normalize(network.embed(synthetic), dim=1)  # type: ignore[operator]
    parts = []
    for features in (theirs, ours):
        cosine = torch.cos(frequencies @ features.T).mean(1)
        sine = torch.sin(frequencies @ features.T).mean(1)
        parts.append((cosine, sine, torch.sqrt(cosine**2 + sine**2)))
    (re, im, size), (re2, im2, size2) = parts
    amplitude = (size - size2) ** 2
    phase = torch.clamp(2 * (size * size2 - re * re2 - im * im2), min=1e-12)
    return 300 * torch.sqrt(0.5 * amplitude + 0.5 * phase).mean()
