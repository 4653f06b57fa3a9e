"""Trajectory matching as its equations read: the student's steps unrolled in one graph, then one backward.

Serves twice: as the naive version the engine's loss and gradient are compared with, and as the plain version
its speed and memory are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


def views(network: nn.Module, flat: Tensor) -> dict[str, Tensor]:
    """Cut a vector [P] into the network's parameters."""
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    parts = flat.split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def step_loss(network: nn.Module, flat: Tensor, images: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of a batch; targets are classes, or logits that are softened."""
    logits = functional_call(network, views(network, flat), (images,))
    return F.cross_entropy(logits, targets.softmax(1) if targets.is_floating_point() else targets)


def unrolled(
    network: nn.Module,
    start: Tensor,
    images: Tensor,
    targets: Tensor,
    batches: Sequence[Tensor],
    augment: Callable[[int, Tensor], Tensor],
    lr: Tensor,
    momentum: float = 0.0,
    weight: float = 1.0,
    fixed: int = 0,
    truncated: bool = False,
) -> list[Tensor]:
    """Return θ_0 … θ_T, with a graph to images, targets and lr through all steps but the first ``fixed``.

    Where it is ``truncated`` (TESLA), the weights at which a step's gradient is taken count as constant.
    """
    path = [start.requires_grad_()]
    velocity = torch.zeros_like(start)
    for step, rows in enumerate(batches):
        at = path[-1].detach().requires_grad_() if truncated else path[-1]
        loss = weight * step_loss(network, at, augment(step, images[rows]), targets[rows])
        (gradient,) = torch.autograd.grad(loss, at, create_graph=True)
        velocity = momentum * velocity + gradient
        path.append(path[-1] - lr * velocity)
        if step < fixed:
            velocity = velocity.detach()
            path[-1] = path[-1].detach().requires_grad_()
    return path


def matching_loss(path: Sequence[Tensor], goals: Mapping[int, tuple[float, Tensor]]) -> Tensor:
    """Sum over goals of weight · ‖θ_step - θ*‖² / ‖θ_0 - θ*‖².

    Args:
        path: θ_0 … θ_T.
        goals: by step a weight and θ*.
    """
    start = path[0].detach()
    terms = [
        weight * (path[step] - goal).square().sum() / (start - goal).square().sum()
        for step, (weight, goal) in goals.items()
    ]
    return torch.stack(terms).sum()
