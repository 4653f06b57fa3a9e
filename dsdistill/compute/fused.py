"""ConvNet's embedding with less memory traffic: the same function of the same weights, for frozen networks.

Matching methods embed thousands of real images with a network that is used once. On a CPU the cost is memory
traffic: the first block alone writes and reads a map of 128 times the size of its input several times. Two
changes avoid it.

* The first convolution has so few input channels that recomputing it is cheaper than storing it. Instance
  normalisation needs only its mean and variance, which follow from the second moments of the input's 3×3
  patches p: for weights w of one output channel, mean = wᵀ E[p] + bias and variance = wᵀ Cov[p] w. So
  convolution, normalisation, ReLU and pooling become one loop that writes only the pooled map.
* Later blocks store channels last. Normalisation, ReLU and pooling then vectorise over channels, and the
  convolution needs no reordering.

Both are plain tensor code for `torch.compile`; uncompiled they are correct but slow.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsdistill.networks.base import Network
from dsdistill.networks.convnet import ConvNet
from dsdistill.networks.layers import ConvBlock

if TYPE_CHECKING:
    from jaxtyping import Float

_FEW_CHANNELS = 4  # beyond, recomputing the first convolution costs more than storing it


def supports(network: Network) -> bool:
    """Whether a network is a ConvNet of instance norm, ReLU and average pooling on few channels."""
    if not (isinstance(network, ConvNet) and network.is_standard):
        return False
    first = network.blocks[0]
    assert isinstance(first, ConvBlock)
    return first.conv.in_channels <= _FEW_CHANNELS


def moments(
    block: ConvBlock, x: Float[Tensor, "B c H W"]
) -> tuple[Float[Tensor, "B 9*c C"], Float[Tensor, "B C"]]:
    """Fold the first block's convolution and instance norm into one affine map of patches, per image.

    Args:
        block: the first block.
        x: [B, c, H, W], padded for its convolution; float32 or float64.

    Returns:
        weights [B, 9c, C] and offsets [B, C]: the normalised map is ``patch @ weights + offset``.
    """
    assert isinstance(block.norm, nn.GroupNorm)
    patches = F.unfold(x, 3)  # [B, 9c, positions]
    mean = patches.mean(2)
    centred = patches - mean[:, :, None]
    covariance = torch.bmm(centred, centred.transpose(1, 2)) / patches.shape[2]
    weight = block.conv.weight.flatten(1).T.contiguous()  # [9c, C]: the loop over C reads it in order
    variance = ((covariance @ weight) * weight).sum(1)
    scale = block.norm.weight * torch.rsqrt(variance + block.norm.eps)
    return weight * scale[:, None, :], block.norm.bias - (mean @ weight) * scale


def head(
    x: Float[Tensor, "B c H W"], weights: Float[Tensor, "B 9*c C"], offsets: Float[Tensor, "B C"]
) -> Float[Tensor, "B h w C"]:
    """Apply convolution, normalisation, ReLU and pooling of the first block in one pass over the output.

    Args:
        x: [B, c, H, W], padded for the convolution; padding inside the loop would cost a branch at every tap.
        weights: [B, 9c, C] and ``offsets`` [B, C], from `moments`.

    Returns:
        [B, H', W', C], channels last.
    """
    return 0.25 * functools.reduce(torch.add, [F.relu(affine(taps, weights, offsets)) for taps in corners(x)])


def corners(x: Float[Tensor, "B c H W"]) -> list[list[Tensor]]:
    """Return the patches of the four positions that a pooled value averages: 9c taps [B, H', W'] each."""
    channels, rows, columns = x.shape[1], (x.shape[2] - 2) // 2, (x.shape[3] - 2) // 2
    places = [(tap // 9, tap % 9 // 3, tap % 3) for tap in range(9 * channels)]
    return [
        [x[:, c, i + u : i + u + 2 * rows - 1 : 2, j + v : j + v + 2 * columns - 1 : 2] for c, u, v in places]
        for i in (0, 1)
        for j in (0, 1)
    ]


def affine(
    taps: list[Float[Tensor, "B h w"]], weights: Float[Tensor, "B taps C"], offsets: Float[Tensor, "B C"]
) -> Float[Tensor, "B h w C"]:
    """Return Σ tap · weight + offset [B, H', W', C] of 9c taps, weights [B, 9c, C] and offsets [B, C]."""
    value = offsets[:, None, None, :]
    for tap, pixels in enumerate(taps):
        value = value + pixels[..., None] * weights[:, None, None, tap, :]
    return value


def tail(network: ConvNet, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B D"]:
    """Run the blocks after the first.

    Args:
        network: a supported ConvNet.
        x: [B, H', W', C] from `head`; convolutions and the maps between blocks have its dtype.

    Returns:
        The embedding [B, feature_dim] in the order of ``network.embed``.
    """
    dtype, x = x.dtype, x.permute(0, 3, 1, 2)
    for block in network.blocks[1:]:
        assert isinstance(block, ConvBlock)
        assert isinstance(block.norm, nn.GroupNorm)
        weight = block.conv.weight.to(dtype, memory_format=torch.channels_last)
        assert block.conv.bias is not None
        x = F.conv2d(x, weight, block.conv.bias.to(dtype), padding=block.conv.padding)
        x = x.to(block.conv.weight.dtype)
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        scale = block.norm.weight[:, None, None] * torch.rsqrt(variance + block.norm.eps)
        x = F.relu(x * scale + (block.norm.bias[:, None, None] - mean * scale))
        x = F.avg_pool2d(x, 2).to(dtype)
    return x.flatten(1)
