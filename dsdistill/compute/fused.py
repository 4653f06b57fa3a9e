"""ConvNet's embedding with fewer bytes moved: the same function of the same weights, for frozen networks.

Matching methods embed thousands of real images with a network that is thrown away at once, and on a CPU what
that costs is memory traffic: the first block alone writes and reads back a map 128 times the size of its
input several times over. Two rewritings avoid it.

* The first convolution sees so few input channels that recomputing it is cheaper than storing it. Instance
  normalisation needs only its mean and variance, and these follow from the second moments of the input's
  3×3 patches: for weights w of one output channel, mean = wᵀ E[p] + bias and variance = wᵀ Cov[p] w. So
  convolution, normalisation, ReLU and pooling become one loop that writes the pooled map alone.
* Later blocks keep channels last, where normalisation, ReLU and pooling vectorise over channels and the
  convolution needs no reordering.

Both are plain tensor code which `torch.compile` turns into loops; run eagerly they are correct but slow.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsdistill.networks.base import Network
from dsdistill.networks.convnet import ConvNet
from dsdistill.networks.layers import ConvBlock

_FEW_CHANNELS = 4  # beyond, recomputing the first convolution costs more than storing it


def supports(network: Network) -> bool:
    """Whether this applies: a ConvNet of instance norm, ReLU and average pooling on few channels."""
    if not (isinstance(network, ConvNet) and network.is_standard):
        return False
    first = network.blocks[0]
    assert isinstance(first, ConvBlock)
    return first.conv.in_channels <= _FEW_CHANNELS


def moments(block: ConvBlock, x: Tensor) -> tuple[Tensor, Tensor]:
    """Fold the first block's convolution and instance norm into one affine map of patches, per image.

    Args:
        block: the first block.
        x: [B, c, H, W], padded for its convolution; float32 or float64.

    Returns:
        weights [B, 9c, C] and offsets [B, C] so that the normalised map is ``patch @ weights + offset``.
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


def head(x: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """Convolve, normalise, rectify and pool in one pass over the output.

    Args:
        x: [B, c, H, W], padded for the convolution beforehand: padding inside the loop would cost a branch
            at every tap.
        weights: [B, 9c, C] and ``offsets`` [B, C], from `moments`.

    Returns:
        [B, H', W', C], channels last.
    """
    return 0.25 * functools.reduce(torch.add, [F.relu(affine(seen, weights, offsets)) for seen in corners(x)])


def corners(x: Tensor) -> list[list[Tensor]]:
    """Return what the four positions that one pooled value averages see: 9c taps [B, H', W'] each."""
    channels, rows, columns = x.shape[1], (x.shape[2] - 2) // 2, (x.shape[3] - 2) // 2
    places = [(tap // 9, tap % 9 // 3, tap % 3) for tap in range(9 * channels)]
    return [
        [x[:, c, i + u : i + u + 2 * rows - 1 : 2, j + v : j + v + 2 * columns - 1 : 2] for c, u, v in places]
        for i in (0, 1)
        for j in (0, 1)
    ]


def affine(seen: list[Tensor], weights: Tensor, offsets: Tensor) -> Tensor:
    """Return Σ tap · weight + offset [B, H', W', C] of 9c taps, weights [B, 9c, C] and offsets [B, C]."""
    value = offsets[:, None, None, :]
    for tap, pixels in enumerate(seen):
        value = value + pixels[..., None] * weights[:, None, None, tap, :]
    return value


def tail(network: ConvNet, x: Tensor) -> Tensor:
    """Run the blocks after the first.

    Args:
        network: a supported ConvNet.
        x: [B, H', W', C] from `head`; its dtype is that of the convolutions and of the maps between blocks.

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


def embed(network: ConvNet, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Compose the parts: ``network.embed(x)`` with maps, and convolutions after the first, in ``dtype``."""
    first = network.blocks[0]
    assert isinstance(first, ConvBlock)
    x = F.pad(x, (int(first.conv.padding[0]),) * 4)
    return tail(network, head(x, *moments(first, x)).to(dtype))
