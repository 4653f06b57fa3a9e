"""How strongly a network reacts to its pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def gradient_penalty(
    network: Callable[[Tensor], Tensor], images: Float[Tensor, "B C H W"]
) -> Float[Tensor, ""]:
    """Return the mean over images and positions of (‖h‖ - 1)², with a graph to the network's parameters.

    h = ∂(Σ logits)/∂images at one image and position is a vector over the channels. Shen et al. 2023 (AST),
    after the penalty of Gulrajani et al. 2017 (*Improved Training of Wasserstein GANs*).

    Args:
        network: images to logits [B, K]; not compiled, since compiled code cannot be differentiated twice.
        images: float [B, C, H, W] in network space.

    Returns:
        Scalar. Its gradient is finite where h is zero: torch takes the gradient of a norm at 0 as 0.

    >>> gradient_penalty(lambda x: 3 * x.flatten(1), torch.ones(2, 1, 4, 4))  # (3 - 1)²
    tensor(4.)
    """
    images = images.detach().requires_grad_()
    (grad,) = torch.autograd.grad(network(images).sum(), images, create_graph=True)
    return (torch.linalg.vector_norm(grad, dim=1) - 1).square().mean()
