"""How strongly a network reacts to its pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gradient_penalty(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the mean over images and positions of (‖h‖ - 1)², with a graph to the network's parameters.

    h = ∂(Σ logits)/∂images at one image and position is a vector over the channels. Shen et al. 2023 (AST),
    after the penalty of Gulrajani et al. 2017 (*Improved Training of Wasserstein GANs*).

    Args:
        network: images to logits [B, K]; eager, since compiled code cannot be differentiated twice.
        images: float [B, C, H, W] in network space.

    Returns:
        Scalar. Its slope is finite where h is zero: the slope of a norm at 0 is taken as 0, as torch does.
    """
    images = images.detach().requires_grad_()
    (slope,) = torch.autograd.grad(network(images).sum(), images, create_graph=True)
    return (torch.linalg.vector_norm(slope, dim=1) - 1).square().mean()
