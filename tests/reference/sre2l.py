"""Recovery of images as SRe2L's released code does it: one batch at a time, a hook on every normalisation.

Total variation and the norm of the images are computed though their weights are 0, the cross-entropy is
computed once more for the log, and several losses are read in every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Hook:
    """Distance of a batch's statistics from the running ones of a layer."""

    def __init__(self, module: nn.BatchNorm2d) -> None:
        self.handle = module.register_forward_hook(self)
        self.distance = torch.zeros(())

    def __call__(self, module: nn.BatchNorm2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        maps = inputs[0]
        mean = maps.mean([0, 2, 3])
        variance = maps.permute(1, 0, 2, 3).contiguous().view(maps.shape[1], -1).var(1, unbiased=False)
        assert module.running_mean is not None
        assert module.running_var is not None
        self.distance = torch.norm(module.running_var - variance, 2) + torch.norm(
            module.running_mean - mean, 2
        )


def priors(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the total variation over four neighbours, and the mean norm of the images."""
    differences = (
        images[:, :, :, :-1] - images[:, :, :, 1:],
        images[:, :, :-1] - images[:, :, 1:],
        images[:, :, 1:, :-1] - images[:, :, :-1, 1:],
        images[:, :, :-1, :-1] - images[:, :, 1:, 1:],
    )
    variation = torch.stack([torch.norm(each) for each in differences]).sum()
    return variation, torch.norm(images.flatten(1), dim=1).mean()


def recovery_loss(
    network: nn.Module, images: Tensor, labels: Tensor, weight: float, first: float = 10.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the classification loss, the weighted alignment and the logits of one batch."""
    hooks = [Hook(each) for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    logits = network(images)
    scales = [first] + [1.0] * (len(hooks) - 1)
    alignment = torch.stack([scale * hook.distance for scale, hook in zip(scales, hooks, strict=True)]).sum()
    for hook in hooks:
        hook.handle.remove()
    return F.cross_entropy(logits, labels), weight * alignment, logits


def recover(
    network: nn.Module,
    start: Tensor,
    labels: Tensor,
    iterations: int,
    lr: float,
    weight: float,
    view: Callable[[Tensor, int], Tensor],
    bounds: tuple[Tensor, Tensor],
    read: bool = True,
) -> Tensor:
    """Recover one batch.

    Args:
        network: in eval mode, its weights without gradients.
        start: [B, C, H, W] in network space.
        labels: int64 [B].
        iterations, lr: of Adam, whose rate follows half a cosine.
        weight: of the alignment.
        view: of the batch in an iteration.
        bounds: of pixels in network space, which broadcast.
        read: whether losses are read in every step.
    """
    images = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([images], lr=lr, betas=(0.5, 0.9), eps=1e-8)
    for iteration in range(iterations):
        for group in optimiser.param_groups:
            group["lr"] = 0.5 * lr * (1 + math.cos(math.pi * iteration / iterations))
        seen = view(images, iteration)
        optimiser.zero_grad()
        classification, alignment, logits = recovery_loss(network, seen, labels, weight)
        variation, norm = priors(seen)
        loss = classification + alignment + 0.0 * variation + 0.0 * norm
        loss.backward()
        optimiser.step()
        if read:
            again = F.cross_entropy(logits, labels)
            for each in (loss, classification, alignment, again):
                each.item()
        with torch.no_grad():
            images.copy_(images.clamp(*bounds))
    return images.detach()
