"""Layers of several networks: normalisation, activation, pooling, and the block that combines them."""

from __future__ import annotations

from typing import Literal, assert_never

import torch.nn.functional as F
from torch import Tensor, nn

from dsdistill.errors import UserError
from dsdistill.networks.base import Block

Norm = Literal["instance", "batch", "group", "layer", "none"]
Activation = Literal["relu", "leakyrelu", "sigmoid", "swish"]
Pool = Literal["avgpool", "maxpool", "nopool"]

SMALL = 64
"""Pixels up to which networks for photographs have their forms for small images."""


def normalisation(kind: Norm, channels: int, size: int) -> nn.Module:
    """Make the normalisation of a [B, channels, size, size] map, affine, eps 1e-5.

    "instance" is GroupNorm with one channel per group: no running statistics, the same in training and
    evaluation. "group" has 4 groups; "layer" has one weight per channel and position.

    Raises:
        UserError: if "group" cannot split the channels evenly.
    """
    match kind:
        case "instance":
            return nn.GroupNorm(channels, channels)
        case "batch":
            return nn.BatchNorm2d(channels)
        case "group":
            if channels % 4:
                raise UserError(f"group normalisation needs a width divisible by 4, not {channels}")
            return nn.GroupNorm(4, channels)
        case "layer":
            return nn.LayerNorm([channels, size, size])
        case "none":
            return nn.Identity()
        case _:
            assert_never(kind)


def activation(kind: Activation) -> nn.Module:
    """Make an element-wise activation, not in place."""
    match kind:
        case "relu":
            return nn.ReLU()
        case "leakyrelu":
            return nn.LeakyReLU(0.01)
        case "sigmoid":
            return nn.Sigmoid()
        case "swish":
            return nn.SiLU()
        case _:
            assert_never(kind)


def pooling(kind: Pool) -> nn.Module:
    """Make a pooling that halves a map (rounding down), or keeps it."""
    match kind:
        case "avgpool":
            return nn.AvgPool2d(2)
        case "maxpool":
            return nn.MaxPool2d(2)
        case "nopool":
            return nn.Identity()
        case _:
            assert_never(kind)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Convolve [B, c, H, W] with [C, c, 3, 3], as ``F.conv2d``.

    On a CPU the gradient of a convolution with padding 3 takes three times as long as with padding 1. Padding
    beyond 1 is therefore added to the image first.
    """
    if padding > 1:
        x, padding = F.pad(x, (padding - 1,) * 4), 1
    return F.conv2d(x, weight, bias, padding=padding)


class Convolution(nn.Conv2d):
    """A 3×3 convolution with bias; see `convolve`."""

    def __init__(self, channels: int, width: int, padding: int) -> None:
        super().__init__(channels, width, 3, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, channels, H, W]."""
        return convolve(x, self.weight, self.bias, int(self.padding[0]))


class ConvBlock(Block):
    """conv → norm → activation → pool."""

    def __init__(self, conv: nn.Conv2d, norm: nn.Module, activation: nn.Module, pool: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.activation = activation
        self.pool = pool

    def features(self, x: Tensor) -> Tensor:
        """Return the map after activation and before pooling."""
        return self.activation(self.norm(self.conv(x)))


class Stage(Block):
    """The layers of one resolution, and the pooling that ends it, if any."""

    def __init__(self, *layers: nn.Module, pool: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.pool = nn.Identity() if pool is None else pool

    def features(self, x: Tensor) -> Tensor:
        """Return the last layer's output, before pooling."""
        return self.layers(x)


def out_of_place(module: nn.Module) -> None:
    """Have no layer of a module overwrite its input, which second-order gradients need."""
    for each in module.modules():
        if getattr(each, "inplace", False):
            each.inplace = False  # type: ignore[assignment]


def extra_padding(channels: int, size: int) -> int:
    """Return the extra padding of the first convolution, in pixels on each side.

    Two for grey 28-pixel images, which makes them 32 wide, and none otherwise. The papers pad every grey
    input in this way, but their only grey data sets (MNIST, Fashion-MNIST) are 28 pixels wide.
    """
    return 2 if channels == 1 and size == 28 else 0


def too_small(network: str, size: int, least: int) -> UserError:
    """Return the error for images that are too small for the poolings of a network."""
    return UserError(
        f"{network} cannot take {size}x{size} images: its feature map would vanish; "
        f"it needs at least {least}x{least}, or choose a shallower network"
    )
