"""Barlow Twins: two views of an image are to be embedded alike, by numbers that tell different things."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def cross_correlation(first: Float[Tensor, "B D"], second: Float[Tensor, "B D"]) -> Float[Tensor, "D D"]:
    """Return the correlation over a batch of each number of one embedding with each of another.

    Equation 2 of Zbontar et al., *Barlow Twins: Self-Supervised Learning via Redundancy Reduction*, ICML
    2021: both are centred over the batch, and each number is divided by its norm. A number that is the same
    for the whole batch correlates with none.

    >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    >>> cross_correlation(x, -x)
    tensor([[-1.,  0.],
            [ 0.,  0.]])
    """
    parts = []
    for embedding in (first, second):
        centred = embedding - embedding.mean(0)
        norms = torch.linalg.vector_norm(centred, dim=0)
        parts.append(centred / norms.clamp(min=torch.finfo(norms.dtype).tiny ** 0.5))
    return parts[0].T @ parts[1]


def barlow_twins(
    first: Float[Tensor, "B D"], second: Float[Tensor, "B D"], off_diagonal: float = 0.0051
) -> Float[Tensor, ""]:
    """Return the loss of Barlow Twins, Σ_i (1 - C_ii)² + λ Σ_i Σ_{j≠i} C_ij² (equation 1 of the paper).

    Args:
        first, second: embeddings of two views of the same images, in the same order.
        off_diagonal: λ; the paper's is 0.0051.

    Returns:
        Scalar, with a graph to both.

    >>> x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> barlow_twins(x, x), barlow_twins(x, -x)  # the same and uncorrelated; the opposite
    (tensor(0.), tensor(8.))
    """
    correlation = cross_correlation(first, second)
    diagonal = correlation.diagonal()
    others = correlation.square().sum() - diagonal.square().sum()
    return (1 - diagonal).square().sum() + off_diagonal * others
