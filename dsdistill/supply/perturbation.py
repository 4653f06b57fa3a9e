"""Noise on the weights of a network, relative to each of its filters (Acc-DD)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from dsdistill.seeding import generator


@torch.no_grad()
def perturb(network: nn.Module, length: float, seed: int, draw: int) -> None:
    """Add a random direction to each filter w of a network, in place: w + length · ‖w‖ · d / ‖d‖.

    d ~ N(0, I). A filter is what makes one output of a convolution or of a linear layer; its norm is over all
    its weights. Biases, and what scales normalised maps, stay as they are (Li et al., NeurIPS 2018; Zhang et
    al., CVPR 2023).

    >>> network = torch.nn.Linear(3, 2)
    >>> before = network.weight.detach().clone()
    >>> perturb(network, 0.5, seed=0, draw=0)
    >>> torch.allclose((network.weight - before).norm(dim=1), 0.5 * before.norm(dim=1))
    True

    Args:
        network: whose parameters of two or more dimensions are changed.
        length: of the noise on a filter, relative to the filter's; 0 changes nothing.
        seed: of the run.
        draw: which network it is; the noise is a function of it and the seed.
    """
    if not length:
        return
    stream = generator(seed, "perturbation", draw)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            filters = parameter.flatten(1)
            noise = torch.randn(filters.shape, generator=stream).to(filters, non_blocking=True)
            moves = length * filters.norm(dim=1, keepdim=True) * F.normalize(noise, dim=1)
            parameter.add_(moves.view_as(parameter))
