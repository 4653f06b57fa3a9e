"""The order in which the weights of a network lie in memory, which decides how fast its convolutions are."""

from __future__ import annotations

import torch
from torch import nn

from dsdistill.networks import Network
from dsdistill.networks.wrapped import Wrapped

FEWEST_CHANNELS = 16
"""Those of the widest vectors of a CPU, in float32."""


def in_fast_order(network: Network, device: torch.device) -> Network:
    """Return a network whose weights lie as its device computes fastest; its values stay the same.

    With batch normalisation, a CPU trains up to 1.5x as fast if channels lie innermost
    (``benchmarks/memory_format.py``). Instance normalisation is slower that way. Networks of libraries and of
    users may take the plain order for granted, so that they stay as they are.

    Args:
        network: on the device.
    """
    plain = isinstance(network, Wrapped) or not network.has_batch_norm
    if device.type != "cpu" or plain or not differentiable_innermost(network):
        return network
    return network.to(memory_format=torch.channels_last)


def differentiable_innermost(network: nn.Module) -> bool:
    """Whether torch computes gradients of a network on a CPU if channels lie innermost.

    In torch 2.14 the gradient of a convolution of single pixels with a stride writes beyond its memory where
    it reads fewer channels than a vector holds. Narrow residual networks have such ones.
    """
    return not any(
        each.kernel_size == (1, 1) and each.stride != (1, 1) and each.in_channels < FEWEST_CHANNELS
        for each in network.modules()
        if isinstance(each, nn.Conv2d)
    )
